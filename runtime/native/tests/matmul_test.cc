#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

void Check(int64_t tokens, int64_t inputs, int64_t outputs, double density, const Epilogue& epilogue, int64_t slices,
           int64_t workers, int64_t block_bytes) {
  SCOPED_TRACE(testing::Message() << tokens << " x " << inputs << " -> " << outputs << ", density " << density
                                  << ", slices " << slices << ", workers " << workers);
  std::mt19937 random(static_cast<unsigned>(tokens + inputs + outputs));
  const std::vector<float> dense = RandomSparse(static_cast<size_t>(inputs * outputs), density, &random);
  const std::vector<float> input = RandomValues(static_cast<size_t>(tokens * inputs), &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(outputs), &random);
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  options.slices = slices;
  options.block_bytes = block_bytes;
  MatMulPlan plan;
  const SparseWeight weight = SparseWeightFromDense({outputs, inputs}, dense.data());
  ASSERT_TRUE(MakeMatMulPlan(weight, bias.data(), epilogue, tokens, options, &plan).ok());
  std::vector<float> output(static_cast<size_t>(tokens * outputs), 12345.0f);
  for (int64_t worker = 0; worker < workers; ++worker) {
    std::vector<float> scratch(static_cast<size_t>(plan.scratch_floats()));
    RunMatMul(plan, input.data(), output.data(), plan.items() * worker / workers,
              plan.items() * (worker + 1) / workers, scratch.data());
  }
  for (int64_t token = 0; token < tokens; ++token) {
    ConvolutionShape shape;
    shape.input_channels = inputs;
    shape.output_channels = outputs;
    const ReferenceResult expected =
        ReferenceConvolution(shape, dense, bias, nullptr, epilogue, 1, 1, input.data() + token * inputs);
    for (int64_t i = 0; i < outputs; ++i) {
      ASSERT_NEAR(output[static_cast<size_t>(token * outputs + i)], expected.value[static_cast<size_t>(i)],
                  1e-5 * (1e-3 + expected.magnitude[static_cast<size_t>(i)]))
          << "token " << token << ", output " << i;
    }
  }
}

TEST(MatMul, AnyNumberOfTokens) {
  ForEachTarget([] {
    for (int64_t tokens = 1; tokens <= 120; tokens += tokens < 20 ? 1 : 7) {
      Check(tokens, 37, 23, 0.3, Epilogue(), 1, 1, 0);
    }
    Check(300, 20, 9, 0.3, Epilogue(), 2, 2, 0);
  });
}

TEST(MatMul, SlicesBlocksAndDensities) {
  ForEachTarget([] {
    for (const double density : {0.0, 0.05, 1.0}) {
      for (const int64_t slices : {1, 2, 5, 30}) {
        for (const int64_t workers : {1, 3}) Check(50, 70, 26, density, Epilogue(), slices, workers, 4096);
      }
    }
  });
}

TEST(MatMul, Gelu) {
  ForEachTarget([] { Check(33, 50, 18, 0.3, Epilogue::Of(Activation::kGelu), 2, 1, 0); });
}

}  // namespace
}  // namespace gossamer
