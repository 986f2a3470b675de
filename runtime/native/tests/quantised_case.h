// A quantised convolution of random numbers, run and compared with the reference.
#ifndef GOSSAMER_TESTS_QUANTISED_CASE_H_
#define GOSSAMER_TESTS_QUANTISED_CASE_H_

#include <gtest/gtest.h>

#include <string>

#include "kernels/quantised_convolution.h"
#include "kernels/quantised_depthwise.h"
#include "tests/convolution_case.h"
#include "tests/guarded_lanes.h"
#include "tests/quantised_reference.h"
#include "tests/targets.h"

namespace gossamer {

struct QuantisedCase : ConvolutionCase {
  bool table = false;
  int32_t input_zero_point = 113;
  int32_t output_zero_point = 20;
  int32_t residual_zero_point = 99;
  int32_t lower = 0;
  int32_t upper = 255;
  float scale = 1.0f;  // of what makes results lie within 0 and 255
  std::vector<int8_t> weight;  // drawn at random if empty
  std::vector<uint8_t> input;  // likewise

  std::string Describe() const {
    return DescribeWith("table " + std::to_string(table) + ", zero points " + std::to_string(input_zero_point) + " " +
                        std::to_string(output_zero_point));
  }
};

// Runs `body(traits)` for every instruction set, and on those that have instructions for four products also without them.
template <class Body>
void ForEachByteTraits(const Body& body) {
  ForEachTarget([&] {
    const ByteTraits best = CurrentByteTraits();
    body(best);
    if (!CurrentByteTraits(false).quads && best.quads) {
      SCOPED_TRACE("pairs");
      body(CurrentByteTraits(false));
    }
  });
}

inline Requantisation DrawRequantisation(const QuantisedCase& c, std::mt19937* random) {
  // Sums have a spread of about 128 * 74 * sqrt(weights of a row): most results are within 0 and 255, some are not.
  const double weights = static_cast<double>(c.shape.input_channels / c.shape.groups * c.shape.taps()) * c.density + 1.0;
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  Requantisation to;
  for (int64_t channel = 0; channel < c.shape.output_channels; ++channel) {
    to.scale.push_back(uniform(*random) * c.scale * 64.0f / static_cast<float>(128.0 * 74.0 * std::sqrt(weights)));
  }
  to.zero_point = c.output_zero_point;
  to.lower = c.lower;
  to.upper = c.upper;
  to.residual_scale = c.residual ? 0.37f * c.scale : 0.0f;
  to.residual_zero_point = c.residual_zero_point;
  if (c.residual && !c.in_place) to.sum_step = 0.7f, to.sum_lower = -40.0f, to.sum_upper = 90.0f;
  if (c.table) to.table = RandomBytes(256, random);
  return to;
}

// The tensors of a case.
struct QuantisedTensors {
  std::vector<uint8_t> input;
  std::vector<uint8_t> residual;
  std::vector<uint8_t> expected;
};

// Runs a plan in as many parts as there are workers, and compares what comes out.
template <class Plan, class Run>
void RunAndCompare(const QuantisedCase& c, const QuantisedTensors& tensors, const Plan& plan, const Run& run) {
  const int64_t inputs = c.shape.input_channels, outputs = c.shape.output_channels;
  const ImageStrides strides{QuantisedStride(plan.input, inputs), QuantisedStride(plan.output, outputs)};
  GuardedLanes in(strides.input * c.images), other(strides.output * c.images), result(strides.output * c.images);
  FillPanels(plan.input, inputs, c.images, tensors.input, &in);
  FillPanels(plan.output, outputs, c.images, tensors.residual, &other);
  GuardedLanes& out = c.in_place ? other : result;
  const int64_t items = plan.items(c.images);
  // The last part first: what one wrote of the lanes before or behind its own would be written over the other way round.
  for (int64_t worker = c.workers; worker-- > 0;) {
    GuardedLanes scratch(plan.scratch_lanes());
    run(plan, in.data(), c.residual ? other.data() : nullptr, out.data(), strides, items * worker / c.workers,
        items * (worker + 1) / c.workers, scratch.data());
    ASSERT_TRUE(scratch.guard_is_untouched());
  }
  ASSERT_TRUE(out.guard_is_untouched());
  std::vector<uint8_t> got(tensors.expected.size());
  for (int64_t image = 0; image < c.images; ++image) {
    PlanarFromQuantised(plan.output, outputs, out.bytes() + kQuad * image * strides.output, {0, plan.output.tiles()},
                        {0, QuadsOf(outputs)},
                        got.data() + image * static_cast<int64_t>(got.size()) / c.images);
  }
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], tensors.expected[i]) << "element " << i;
}

inline void CheckQuantised(const QuantisedCase& c, const ByteTraits& traits, unsigned seed) {
  SCOPED_TRACE(c.Describe());
  std::mt19937 random(seed);
  const ConvolutionShape& shape = c.shape;
  const int64_t in_size = shape.input_channels * c.height * c.width;
  const int64_t out_size = shape.output_channels * shape.output_height(c.height) * shape.output_width(c.width);
  const std::vector<int64_t> extents = {shape.output_channels, shape.input_channels / shape.groups, shape.kernel_height,
                                        shape.kernel_width};
  const size_t weights = static_cast<size_t>(extents[0] * extents[1] * extents[2] * extents[3]);
  const std::vector<int8_t> dense = c.weight.empty() ? RandomSparseBytes(weights, c.density, &random) : c.weight;
  QuantisedTensors tensors;
  tensors.input = c.input.empty() ? RandomBytes(static_cast<size_t>(in_size * c.images), &random) : c.input;
  tensors.residual = RandomBytes(static_cast<size_t>(out_size * c.images), &random);
  std::vector<int32_t> bias;
  std::uniform_int_distribution<int32_t> any(-100000, 100000);
  for (int64_t channel = 0; c.bias && channel < shape.output_channels; ++channel) bias.push_back(any(random));
  const int32_t* const biases = c.bias ? bias.data() : nullptr;
  const Requantisation to = DrawRequantisation(c, &random);
  for (int64_t image = 0; image < c.images; ++image) {
    const std::vector<uint8_t> one =
        QuantisedReference(shape, dense, bias, c.input_zero_point, to,
                           c.residual ? tensors.residual.data() + image * out_size : nullptr, c.height, c.width,
                           tensors.input.data() + image * in_size);
    tensors.expected.insert(tensors.expected.end(), one.begin(), one.end());
  }

  const SparseByteWeight weight = SparseWeightFromDense(extents, dense.data());
  ASSERT_TRUE(CheckConvolution(shape, weight).ok());
  ASSERT_TRUE(CheckImage(shape, c.height, c.width).ok());
  ASSERT_TRUE(CheckRequantisation(to, shape.output_channels).ok());
  ASSERT_TRUE(CheckSums(weight, biases).ok());
  QuantisedOptions options;
  options.traits = traits;
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  options.column_shift = c.column_shift;
  QuantisedConvolutionPlan plan;
  const Status made = MakeQuantisedConvolutionPlan(shape, weight, biases, c.input_zero_point, to, c.height, c.width,
                                                   options, &plan);
  ASSERT_TRUE(made.ok()) << made.problem();
  RunAndCompare(c, tensors, plan, RunQuantisedConvolution);

  if (!SuitsQuantisedDepthwise(shape, c.height, c.width, c.threads)) return;
  SCOPED_TRACE("depthwise");
  QuantisedDepthwisePlan depthwise;
  const Status also_made = MakeQuantisedDepthwisePlan(shape, weight, biases, c.input_zero_point, to, c.height, c.width,
                                                      options, &depthwise);
  ASSERT_TRUE(also_made.ok()) << also_made.problem();
  RunAndCompare(c, tensors, depthwise, RunQuantisedDepthwise);
}

// On every instruction set.
inline void CheckQuantised(const QuantisedCase& c, unsigned seed) {
  ForEachByteTraits([&](const ByteTraits& traits) { CheckQuantised(c, traits, seed); });
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_QUANTISED_CASE_H_
