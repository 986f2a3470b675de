#include "bench/quantised_layers.h"

#include <cstdio>

#include "kernels/depthwise.h"
#include "kernels/quantised_convolution.h"

namespace gossamer {
namespace {

// Single weights, or blocks of four input channels at one position of the kernel.
SparseByteWeight DrawBytes(const ConvolutionShape& shape, double density, bool blocks, std::mt19937* random) {
  const int64_t channels = shape.input_channels / shape.groups;
  const std::vector<int64_t> extents = {shape.output_channels, channels, shape.kernel_height, shape.kernel_width};
  std::vector<int8_t> dense(static_cast<size_t>(shape.output_channels * channels * shape.taps()), 0);
  std::normal_distribution<float> normal(0.0f, 36.0f);
  std::bernoulli_distribution keep(density);
  const auto draw = [&] {
    const int weight = static_cast<int>(std::clamp(normal(*random), -127.0f, 127.0f));
    return static_cast<int8_t>(weight == 0 ? 1 : weight);
  };
  for (int64_t row = 0; row < shape.output_channels; ++row) {
    for (int64_t tap = 0; tap < shape.taps(); ++tap) {
      bool kept = false;
      for (int64_t channel = 0; channel < channels; ++channel) {
        if (!blocks || channel % kQuad == 0) kept = keep(*random);
        if (kept) dense[static_cast<size_t>((row * channels + channel) * shape.taps() + tap)] = draw();
      }
    }
  }
  return SparseWeightFromDense(extents, dense.data());
}




}  // namespace

bool TimeQuantised(const LayerShape& layer, const Options& options, Timing* timing) {
  std::mt19937 random(1);
  const ConvolutionShape& shape = layer.convolution;
  const bool dense = IsDepthwise(shape);
  const SparseByteWeight weight = DrawBytes(shape, dense ? 1.0 : options.density, options.blocks, &random);
  Requantisation to;
  to.scale.assign(static_cast<size_t>(shape.output_channels), 1e-3f);
  QuantisedOptions plan_options;
  plan_options.traits = CurrentByteTraits(!options.pairs);
  plan_options.threads = options.threads;
  plan_options.block_bytes = options.block_bytes;
  plan_options.column_shift = options.column_shift;
  const int64_t height = layer.kind == LayerShape::Kind::kLinear ? 1 : layer.height;
  QuantisedConvolutionPlan plan;
  const auto start = Clock::now();
  const Status status =
      MakeQuantisedConvolutionPlan(shape, weight, nullptr, 0, to, height, layer.width, plan_options, &plan);
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", layer.name().c_str(), status.problem());
    return false;
  }
  const ImageStrides strides{QuantisedStride(plan.input, shape.input_channels),
                             QuantisedStride(plan.output, shape.output_channels)};
  AlignedFloats input(strides.input), output(strides.output), scratch(plan.scratch_lanes());
  input.Draw(strides.input, &random);
  timing->multiply_adds = static_cast<double>(weight.kept()) * static_cast<double>(shape.output_height(height)) *
                          static_cast<double>(shape.output_width(layer.width));
  timing->padding =
      static_cast<double>(kQuad) * static_cast<double>(plan.entries) / static_cast<double>(std::max<size_t>(weight.kept(), 1)) - 1.0;
  timing->blocks = plan.blocks.size();
  const auto lanes = [](const AlignedFloats& memory) { return reinterpret_cast<int32_t*>(memory.data()); };
  Measure(options, [&] {
    RunQuantisedConvolution(plan, lanes(input), nullptr, lanes(output), strides, 0, plan.items(1), lanes(scratch));
  }, timing);
  return true;
}

}  // namespace gossamer
