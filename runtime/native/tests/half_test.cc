// Products in fp16: what is exact, how far the rest is off, and what lies beyond. Every shape is in convolution_test and
// matmul_test.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convolution.h"
#include "kernels/half_weight.h"
#include "kernels/matmul.h"
#include "tests/panels.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

constexpr int64_t kTokens = 5;

// [tokens][outputs] of inputs that are the same for all outputs' weights, [outputs][inputs].
std::vector<float> Product(Arithmetic arithmetic, int64_t outputs, const std::vector<float>& weight,
                           const std::vector<float>& input) {
  const int64_t inputs = static_cast<int64_t>(weight.size()) / outputs;
  const int64_t tokens = static_cast<int64_t>(input.size()) / inputs;
  PlanOptions options;
  options.arithmetic = arithmetic;
  options.traits = CurrentKernelTraits(arithmetic);
  MatMulPlan plan;
  const SparseWeight sparse = SparseWeightFromDense({outputs, inputs}, weight.data());
  EXPECT_TRUE(MakeMatMulPlan(sparse, nullptr, Epilogue(), options, &plan).ok());
  std::vector<float> output(static_cast<size_t>(tokens * outputs));
  AlignedFloats scratch(plan.scratch_floats());
  RunMatMul(plan, tokens, input.data(), nullptr, output.data(), 0, plan.items(tokens), scratch.data());
  return output;
}

template <class Body>
void ForEachHalf(const Body& body) {
  ForEachTarget([&] {
    ForEachArithmetic([&](Arithmetic arithmetic) {
      if (arithmetic != Arithmetic::kFloat) body(arithmetic);
    });
  });
}

// Two outputs of `inputs` whole numbers, whose chains stay within 2048.
void CheckWholeNumbers(Arithmetic arithmetic, int64_t tokens, int64_t inputs) {
  std::vector<float> weight, input;
  for (int64_t i = 0; i < 2 * inputs; ++i) weight.push_back(static_cast<float>(i % 3 + 1));
  for (int64_t i = 0; i < tokens * inputs; ++i) input.push_back(static_cast<float>(17 + i % 5));
  const std::vector<float> got = Product(arithmetic, 2, weight, input);
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t output = 0; output < 2; ++output) {
      double sum = 0.0;
      for (int64_t i = 0; i < inputs; ++i) {
        sum += weight[static_cast<size_t>(output * inputs + i)] * input[static_cast<size_t>(token * inputs + i)];
      }
      ASSERT_EQ(got[static_cast<size_t>(2 * token + output)], sum) << inputs << " inputs, " << tokens << " tokens";
    }
  }
}

// They are exact, however long the row is: sums of chains are added in fp32.
TEST(Half, WholeNumbersAreExact) {
  ForEachHalf([&](Arithmetic arithmetic) {
    for (const int64_t inputs : {1, 2, 31, 32, 33, 65, 5000}) CheckWholeNumbers(arithmetic, kTokens, inputs);
  });
}

// Chains of every remainder, of rows of every width: with four sets of sums, two and one.
TEST(Half, WholeNumbersAreExactInRowsOfEveryWidth) {
  ForEachHalf([&](Arithmetic arithmetic) {
    for (int64_t tokens = 4; tokens <= 64; tokens += 4) {
      for (const int64_t inputs : {1, 2, 3, 4, 5, 6, 7, 8, 33, 34, 35, 67}) {
        CheckWholeNumbers(arithmetic, tokens, inputs);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

// What half_row-inl.h says of normal weights and a ReLU's outputs.
TEST(Half, TheMeanErrorDoesNotGrowWithTheRow) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  ForEachHalf([&](Arithmetic arithmetic) {
    for (const int64_t inputs : {64, 1024}) {
      constexpr int64_t kOutputs = 200;
      std::vector<float> weight(static_cast<size_t>(kOutputs * inputs)), input(static_cast<size_t>(kTokens * inputs));
      for (float& value : weight) value = normal(random);
      for (float& value : input) value = std::max(0.0f, normal(random));
      const std::vector<float> got = Product(arithmetic, kOutputs, weight, input);
      double errors = 0.0, values = 0.0;
      for (int64_t token = 0; token < kTokens; ++token) {
        for (int64_t output = 0; output < kOutputs; ++output) {
          double sum = 0.0;
          for (int64_t i = 0; i < inputs; ++i) {
            sum += static_cast<double>(weight[static_cast<size_t>(output * inputs + i)]) *
                   input[static_cast<size_t>(token * inputs + i)];
          }
          errors += std::pow(got[static_cast<size_t>(kOutputs * token + output)] - sum, 2.0);
          values += sum * sum;
        }
      }
      EXPECT_LT(std::sqrt(errors / values), 8e-4) << inputs << " inputs";
      EXPECT_GT(std::sqrt(errors / values), 1e-4) << inputs << " inputs: not in fp16";
    }
  });
}

// Rows are multiplied over powers of two of their own.
TEST(Half, SmallAndLargeWeightsLoseNothing) {
  ForEachHalf([&](Arithmetic arithmetic) {
    const std::vector<float> weight = {3e-30f, -1e-30f, 3e30f, -1e30f, 3e-3f, -1e-3f};
    const std::vector<float> got = Product(arithmetic, 3, weight, {2, 1, 4, 1, 6, 1, 8, 1, 10, 1});
    for (size_t i = 0; i < got.size(); ++i) {
      const double expected = weight[2 * (i % 3)] * (2.0 * (static_cast<double>(i / 3) + 1.0)) + weight[2 * (i % 3) + 1];
      ASSERT_NEAR(got[i], expected, 3.0 / 2048 * std::abs(expected) * 1.5) << i;
    }
  });
}

TEST(Half, NaNAndInfinityGoWhereKeptWeightsReadThem) {
  const float infinity = std::numeric_limits<float>::infinity();
  ForEachHalf([&](Arithmetic arithmetic) {
    // Weights: of the first input alone, of the second alone, of both. Beyond 65504 there is nothing but infinity.
    const std::vector<float> weight = {1, 0, 0, 2, 1, -1};
    const std::vector<float> got = Product(arithmetic, 3, weight, {NAN, 1, infinity, 1, 1, -infinity, 1e6f, 2, -65504, 3});
    const std::vector<float> expected = {NAN, 2, NAN, infinity, 2, infinity, 1, -infinity, infinity,
                                         infinity, 4, infinity, -65504, 6, -65504};
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(got[i])) << i;
      } else {
        ASSERT_EQ(got[i], expected[i]) << i;
      }
    }
  });
}

TEST(Half, ScalesAreThePowersOfTwoOfRows) {
  const float smallest = std::numeric_limits<float>::denorm_min(), largest = std::numeric_limits<float>::max();
  const std::vector<float> dense = {0, 0, 1, -3, smallest, 0, largest, 1};
  std::vector<float> scale;
  const HalfWeight halves = HalvesFromWeight(SparseWeightFromDense({4, 2}, dense.data()), &scale);
  EXPECT_EQ(scale, (std::vector<float>{1, 2, smallest, std::ldexp(1.0f, 127)}));
  std::vector<float> value;
  for (const Half half : halves.value) value.push_back(FloatFromHalf(half.bits));
  EXPECT_EQ(value, (std::vector<float>{0.5f, -1.5f, 1.0f, 2.0f, 0.0f}));
}

}  // namespace
}  // namespace gossamer
