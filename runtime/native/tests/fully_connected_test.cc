#include "kernels/fully_connected.h"

#include <gtest/gtest.h>

#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

void Check(int64_t inputs, int64_t outputs, double density, const Epilogue& epilogue, int64_t slices, bool with_bias,
           int residual = 0) {
  SCOPED_TRACE(testing::Message() << inputs << " -> " << outputs << ", density " << density << ", slices " << slices);
  std::mt19937 random(static_cast<unsigned>(inputs + outputs));
  const std::vector<float> dense = RandomSparse(static_cast<size_t>(inputs * outputs), density, &random);
  const std::vector<float> input = RandomValues(static_cast<size_t>(inputs), &random);
  const std::vector<float> bias =
      with_bias ? RandomValues(static_cast<size_t>(outputs), &random) : std::vector<float>();
  FullyConnectedPlan plan;
  const SparseWeight weight = SparseWeightFromDense({outputs, inputs}, dense.data());
  ASSERT_TRUE(MakeFullyConnectedPlan(weight, with_bias ? bias.data() : nullptr, epilogue, slices, &plan).ok());
  const std::vector<float> other = RandomValues(static_cast<size_t>(outputs), &random);
  std::vector<float> output = residual == 2 ? other : std::vector<float>(static_cast<size_t>(outputs), 12345.0f);
  const float* add = residual == 0 ? nullptr : residual == 1 ? other.data() : output.data();
  for (int64_t item = 0; item < plan.items(); ++item) {
    RunFullyConnected(plan, input.data(), add, output.data(), item, item + 1);
  }
  ConvolutionShape shape;
  shape.input_channels = inputs;
  shape.output_channels = outputs;
  const ReferenceResult expected =
      ReferenceConvolution(shape, dense, bias, residual == 0 ? nullptr : other.data(), epilogue, 1, 1, input.data());
  for (size_t i = 0; i < output.size(); ++i) {
    ASSERT_NEAR(output[i], expected.value[i], 1e-5 * (1e-3 + expected.magnitude[i])) << "output " << i;
  }
}

TEST(FullyConnected, OddSizesDensitiesAndSlices) {
  ForEachTarget([] {
    for (const int64_t inputs : {1, 5, 64, 333}) {
      for (const int64_t outputs : {1, 3, 16, 17, 100}) {
        for (const double density : {0.0, 0.1, 1.0}) {
          for (const int64_t slices : {1, 3}) Check(inputs, outputs, density, Epilogue(), slices, slices == 1);
        }
      }
    }
  });
}

TEST(FullyConnected, EveryEpilogue) {
  ForEachTarget([] {
    for (const Activation activation :
         {Activation::kRelu, Activation::kHardSwish, Activation::kSilu, Activation::kGelu}) {
      Check(40, 21, 0.4, Epilogue::Of(activation), 2, true);
    }
    Check(40, 21, 0.4, Epilogue::Clip(-0.2f, 0.3f), 2, true);
    for (const float slope : {0.01f, 0.2f, 1.5f, -0.5f}) Check(40, 21, 0.4, Epilogue::LeakyRelu(slope), 2, true);
    // A residual, apart from the output (1) and in its place (2).
    for (const int residual : {1, 2}) {
      Check(40, 21, 0.4, Epilogue::Of(Activation::kGelu), 2, true, residual);
      Check(40, 21, 0.0, Epilogue::Clip(-0.2f, 0.3f), 1, false, residual);
    }
  });
}

TEST(FullyConnected, MoreColumnsThan16BitsAddress) {
  ForEachTarget([] { Check(150000, 19, 0.01, Epilogue::Of(Activation::kRelu), 2, true, 2); });
}

}  // namespace
}  // namespace gossamer
