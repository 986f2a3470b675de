#include "kernels/quantised_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/panels.h"
#include "tests/quantised_case.h"
#include "tests/reference.h"

namespace gossamer {
namespace {

struct Case {
  int64_t inputs = 1;
  int64_t outputs = 1;
  double density = 0.3;
  bool table = false;
  Epilogue epilogue;  // of the dynamic product
  int64_t threads = 1;
  int64_t workers = 1;
  int64_t block_bytes = 0;
  int residual = 0;  // 1: apart from the output, 2: in its place
  bool shared = false;  // the residual of all tokens is one

  std::string Describe(int64_t tokens) const {
    std::ostringstream text;
    text << tokens << " x " << inputs << " -> " << outputs << ", density " << density << ", table " << table
         << ", activation " << static_cast<int>(epilogue.activation) << ", threads " << threads << ", workers " << workers
         << ", block " << block_bytes << ", residual " << residual << ", shared " << shared;
    return text.str();
  }
};

const std::vector<Case> kCases = [] {
  std::vector<Case> cases;
  for (const int64_t inputs : {1, 3, 4, 30, 64}) {
    for (const int64_t outputs : {1, 5, 8, 33}) {
      Case c;
      c.inputs = inputs;
      c.outputs = outputs;
      c.residual = static_cast<int>(inputs + outputs) % 3;
      c.shared = c.residual == 1;
      c.table = outputs == 8;
      c.threads = 1 + inputs % 3;
      c.workers = 1 + outputs % 4;
      c.block_bytes = inputs == 64 ? 1 : 0;
      if (inputs == 30) c.epilogue = Epilogue::Of(Activation::kRelu);
      cases.push_back(c);
    }
  }
  Case empty;
  empty.inputs = 40;
  empty.outputs = 12;
  empty.density = 0.0;
  empty.threads = 3;
  cases.push_back(empty);
  Case full = empty;
  full.density = 1.0;
  full.residual = 2;
  cases.push_back(full);
  return cases;
}();

const int64_t kTokens[] = {1, 2, 7, 56, 64, 65, 130};

void CheckStatic(const Case& c, const ByteTraits& traits) {
  std::mt19937 random(static_cast<unsigned>(c.inputs + c.outputs));
  const std::vector<int8_t> dense = RandomSparseBytes(static_cast<size_t>(c.inputs * c.outputs), c.density, &random);
  QuantisedCase numbers;
  numbers.shape = Square(c.inputs, c.outputs, 1, 1);
  numbers.density = c.density;
  numbers.residual = c.residual != 0;
  numbers.table = c.table;
  const Requantisation to = DrawRequantisation(numbers, &random);
  std::vector<int32_t> bias;
  for (int64_t i = 0; i < c.outputs; ++i) bias.push_back(static_cast<int32_t>(random() % 20000) - 10000);
  QuantisedOptions options;
  options.traits = traits;
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  QuantisedMatMulPlan plan;
  const SparseByteWeight weight = SparseWeightFromDense({c.outputs, c.inputs}, dense.data());
  ASSERT_TRUE(MakeQuantisedMatMulPlan(weight, bias.data(), 113, to, options, &plan).ok());
  for (const int64_t tokens : kTokens) {
    SCOPED_TRACE(c.Describe(tokens));
    const std::vector<uint8_t> input = RandomBytes(static_cast<size_t>(tokens * c.inputs), &random);
    const std::vector<uint8_t> other = RandomBytes(static_cast<size_t>(tokens * c.outputs), &random);
    GuardedLanes output(QuadsOf(tokens * c.outputs));
    uint8_t* const bytes = reinterpret_cast<uint8_t*>(output.data());
    if (c.residual == 2) std::copy(other.begin(), other.end(), bytes);
    const uint8_t* add = c.residual == 0 ? nullptr : c.residual == 1 ? other.data() : bytes;
    const int64_t items = plan.items(tokens);
    for (int64_t worker = c.workers; worker-- > 0;) {
      GuardedLanes scratch(plan.scratch_lanes());
      RunQuantisedMatMul(plan, tokens, input.data(), {add, c.shared}, bytes, items * worker / c.workers,
                         items * (worker + 1) / c.workers, scratch.data());
      ASSERT_TRUE(scratch.guard_is_untouched());
    }
    ASSERT_TRUE(output.guard_is_untouched());
    for (int64_t token = 0; token < tokens; ++token) {
      const std::vector<uint8_t> expected =
          QuantisedReference(numbers.shape, dense, bias, 113, to,
                             c.residual == 0 ? nullptr : other.data() + (c.shared ? 0 : token * c.outputs), 1, 1,
                             input.data() + token * c.inputs);
      for (int64_t i = 0; i < c.outputs; ++i) {
        ASSERT_EQ(bytes[token * c.outputs + i], expected[static_cast<size_t>(i)]) << "token " << token << ", output " << i;
      }
    }
  }
}

// The dynamic product word for word.
std::vector<float> DynamicReference(const Case& c, const std::vector<int8_t>& dense, const std::vector<float>& scale,
                                    const std::vector<float>& bias, const float* input, const float* residual) {
  float most = 0.0f;
  for (int64_t i = 0; i < c.inputs; ++i) most = std::max(most, std::abs(input[i]));
  volatile const float factor = most > 0.0f ? 127.0f / most : 0.0f;
  volatile const float token_scale = most > 0.0f ? most / 127.0f : 1.0f;
  std::vector<float> result;
  for (int64_t row = 0; row < c.outputs; ++row) {
    int32_t sum = 0;
    for (int64_t i = 0; i < c.inputs; ++i) {
      volatile const float scaled = input[i] * factor;
      sum += dense[static_cast<size_t>(row * c.inputs + i)] * static_cast<int32_t>(std::nearbyint(scaled));
    }
    volatile float value = static_cast<float>(sum) * scale[static_cast<size_t>(row)];
    value = value * token_scale;
    value = value + bias[static_cast<size_t>(row)];
    if (residual != nullptr) value = value + residual[row];
    result.push_back(std::clamp(static_cast<float>(value), c.epilogue.lower, c.epilogue.upper));
  }
  return result;
}

void CheckDynamic(const Case& c, const ByteTraits& traits) {
  std::mt19937 random(static_cast<unsigned>(c.inputs + c.outputs));
  const std::vector<int8_t> dense = RandomSparseBytes(static_cast<size_t>(c.inputs * c.outputs), c.density, &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(c.outputs), &random);
  std::vector<float> scale;
  for (const float value : RandomValues(static_cast<size_t>(c.outputs), &random)) scale.push_back(0.01f + std::abs(value));
  QuantisedOptions options;
  options.traits = traits;
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  QuantisedMatMulPlan plan;
  const SparseByteWeight weight = SparseWeightFromDense({c.outputs, c.inputs}, dense.data());
  ASSERT_TRUE(MakeDynamicMatMulPlan(weight, scale.data(), bias.data(), c.epilogue, options, &plan).ok());
  for (const int64_t tokens : kTokens) {
    SCOPED_TRACE(c.Describe(tokens));
    std::vector<float> input = RandomValues(static_cast<size_t>(tokens * c.inputs), &random);
    if (tokens == 7) std::fill(input.begin(), input.begin() + c.inputs, 0.0f);
    const std::vector<float> other = RandomValues(static_cast<size_t>(tokens * c.outputs), &random);
    AlignedFloats output(tokens * c.outputs);
    if (c.residual == 2) std::copy(other.begin(), other.end(), output.data());
    const float* add = c.residual == 0 ? nullptr : c.residual == 1 ? other.data() : output.data();
    const int64_t items = plan.items(tokens);
    for (int64_t worker = c.workers; worker-- > 0;) {
      GuardedLanes scratch(plan.scratch_lanes());
      RunDynamicMatMul(plan, tokens, input.data(), add, output.data(), items * worker / c.workers,
                       items * (worker + 1) / c.workers, scratch.data());
      ASSERT_TRUE(scratch.guard_is_untouched());
    }
    ASSERT_TRUE(output.guard_is_untouched());
    for (int64_t token = 0; token < tokens; ++token) {
      const std::vector<float> expected =
          DynamicReference(c, dense, scale, bias, input.data() + token * c.inputs,
                           c.residual == 0 ? nullptr : other.data() + token * c.outputs);
      for (int64_t i = 0; i < c.outputs; ++i) {
        ASSERT_EQ(output.data()[token * c.outputs + i], expected[static_cast<size_t>(i)])
            << "token " << token << ", output " << i;
      }
    }
  }
}

// Sums of bytes as floats, word for word, in two runs with other scales.
void CheckDequantised(const Case& c, const ByteTraits& traits) {
  std::mt19937 random(static_cast<unsigned>(c.inputs + c.outputs));
  const std::vector<int8_t> dense = RandomSparseBytes(static_cast<size_t>(c.inputs * c.outputs), c.density, &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(c.outputs), &random);
  std::vector<float> scale;
  for (const float value : RandomValues(static_cast<size_t>(c.outputs), &random)) scale.push_back(0.01f + std::abs(value));
  QuantisedOptions options;
  options.traits = traits;
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  QuantisedMatMulPlan plan;
  const SparseByteWeight weight = SparseWeightFromDense({c.outputs, c.inputs}, dense.data());
  ASSERT_TRUE(MakeDynamicMatMulPlan(weight, scale.data(), bias.data(), c.epilogue, options, &plan).ok());
  for (const int64_t tokens : kTokens) {
    SCOPED_TRACE(c.Describe(tokens));
    const ByteScale of{0.01f * static_cast<float>(tokens), static_cast<int32_t>(tokens * 37 % 256)};
    const std::vector<uint8_t> input = RandomBytes(static_cast<size_t>(tokens * c.inputs), &random);
    const std::vector<float> other = RandomValues(static_cast<size_t>(tokens * c.outputs), &random);
    AlignedFloats output(tokens * c.outputs);
    if (c.residual == 2) std::copy(other.begin(), other.end(), output.data());
    const float* add = c.residual == 0 ? nullptr : c.residual == 1 ? other.data() : output.data();
    const int64_t items = plan.items(tokens);
    for (int64_t worker = c.workers; worker-- > 0;) {
      GuardedLanes scratch(plan.scratch_lanes());
      RunDequantisedMatMul(plan, tokens, input.data(), of, add, output.data(), items * worker / c.workers,
                           items * (worker + 1) / c.workers, scratch.data());
      ASSERT_TRUE(scratch.guard_is_untouched());
    }
    ASSERT_TRUE(output.guard_is_untouched());
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t row = 0; row < c.outputs; ++row) {
        int32_t sum = 0;
        for (int64_t i = 0; i < c.inputs; ++i) {
          sum += dense[static_cast<size_t>(row * c.inputs + i)] *
                 (input[static_cast<size_t>(token * c.inputs + i)] - of.zero_point);
        }
        volatile const float both = of.scale * scale[static_cast<size_t>(row)];
        volatile float value = static_cast<float>(sum) * both;
        value = value + bias[static_cast<size_t>(row)];
        if (add != nullptr) value = value + other[static_cast<size_t>(token * c.outputs + row)];
        ASSERT_EQ(output.data()[token * c.outputs + row],
                  std::clamp(static_cast<float>(value), c.epilogue.lower, c.epilogue.upper))
            << "token " << token << ", output " << row;
      }
    }
  }
}

TEST(QuantisedMatMul, AnySizes) {
  ForEachByteTraits([](const ByteTraits& traits) {
    for (const Case& c : kCases) CheckStatic(c, traits);
  });
}

TEST(DynamicMatMul, AnySizes) {
  ForEachByteTraits([](const ByteTraits& traits) {
    for (const Case& c : kCases) CheckDynamic(c, traits);
  });
}

TEST(DequantisedMatMul, AnySizes) {
  ForEachByteTraits([](const ByteTraits& traits) {
    for (const Case& c : kCases) CheckDequantised(c, traits);
  });
}

// A token that holds NaN or infinity gives NaN, and its neighbours what they gave before; the smallest numbers are zeros.
TEST(DynamicMatMul, TokensThatAreNoNumbers) {
  const std::vector<int8_t> dense = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const SparseByteWeight weight = SparseWeightFromDense({2, 5}, dense.data());
  const float scale[] = {1.0f, 1.0f};
  const float bias[] = {3.0f, 4.0f};
  ForEachByteTraits([&](const ByteTraits& traits) {
    QuantisedOptions options;
    options.traits = traits;
    QuantisedMatMulPlan plan;
    ASSERT_TRUE(MakeDynamicMatMulPlan(weight, scale, bias, Epilogue(), options, &plan).ok());
    for (const float odd : {std::nanf(""), INFINITY, -INFINITY, 1e-38f, 1e-45f}) {
      std::vector<float> input(15, 1.0f);
      input[7] = odd;
      if (odd < 1.0f && odd > 0.0f) std::fill(input.begin() + 5, input.begin() + 10, odd);
      std::vector<float> output(6);
      GuardedLanes scratch(plan.scratch_lanes());
      RunDynamicMatMul(plan, 3, input.data(), nullptr, output.data(), 0, plan.items(3), scratch.data());
      EXPECT_EQ(output[0], 18.0f);
      EXPECT_EQ(output[5], 44.0f);
      if (std::isfinite(odd)) {
        EXPECT_EQ(output[2], 3.0f);
        EXPECT_EQ(output[3], 4.0f);
      } else {
        EXPECT_TRUE(std::isnan(output[2]) && std::isnan(output[3]));
      }
    }
  });
}

}  // namespace
}  // namespace gossamer
