#include "bench/quantised_layers.h"

#include <cstdio>

#include "kernels/quantised_convolution.h"
#include "kernels/quantised_depthwise.h"
#include "kernels/quantised_matmul.h"

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

Requantisation ScalesOf(const SparseByteWeight& weight, const Options& options) {
  Requantisation to;
  if (options.residual) to.residual_scale = 0.5f;
  to.scale.assign(static_cast<size_t>(weight.rows), 1e-3f);
  return to;
}

// What else than nonzero weights is multiplied.
double Padding(size_t quads, const SparseByteWeight& weight) {
  return static_cast<double>(kQuad) * static_cast<double>(quads) /
             static_cast<double>(std::max<size_t>(weight.kept(), 1)) - 1.0;
}

int32_t* Lanes(const AlignedFloats& memory) { return reinterpret_cast<int32_t*>(memory.data()); }

bool Say(const LayerShape& layer, const Status& status) {
  if (!status.ok()) std::fprintf(stderr, "%s: %s\n", layer.name().c_str(), status.problem());
  return status.ok();
}

template <class Plan, class Make, class Run>
bool TimePlan(const LayerShape& layer, const SparseByteWeight& weight, const QuantisedOptions& plan_options,
              const Options& options, const Make& make, const Run& run, Plan* plan, Timing* timing) {
  const ConvolutionShape& shape = layer.convolution;
  const auto start = Clock::now();
  const Status status =
      make(shape, weight, nullptr, 0, ScalesOf(weight, options), layer.height, layer.width, plan_options, plan);
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  if (!Say(layer, status)) return false;
  const ImageStrides strides{QuantisedStride(plan->input, shape.input_channels),
                             QuantisedStride(plan->output, shape.output_channels)};
  AlignedFloats input(strides.input), residual(strides.output), output(strides.output), scratch(plan->scratch_lanes());
  std::mt19937 random(2);
  input.Draw(strides.input, &random);
  Measure(options, [&] {
    run(*plan, Lanes(input), options.residual ? Lanes(residual) : nullptr, Lanes(output), strides, 0, plan->items(1), Lanes(scratch));
  }, timing);
  return true;
}

bool TimeMatMul(const LayerShape& layer, const SparseByteWeight& weight, const QuantisedOptions& plan_options,
                const Options& options, Timing* timing) {
  QuantisedMatMulPlan plan;
  const auto start = Clock::now();
  const Status status = MakeQuantisedMatMulPlan(weight, nullptr, 0, ScalesOf(weight, options), plan_options, &plan);
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  if (!Say(layer, status)) return false;
  const int64_t tokens = layer.width;
  AlignedFloats input(tokens * weight.columns), output(tokens * weight.rows), scratch(plan.scratch_lanes());
  timing->padding = Padding(plan.product.entries, weight);
  timing->blocks = plan.product.blocks.size();
  Measure(options, [&] {
    RunQuantisedMatMul(plan, tokens, reinterpret_cast<const uint8_t*>(input.data()), {},
                       reinterpret_cast<uint8_t*>(output.data()), 0, plan.items(tokens), Lanes(scratch));
  }, timing);
  return true;
}

}  // namespace

bool TimeQuantised(const LayerShape& layer, const Options& options, Timing* timing) {
  std::mt19937 random(1);
  const ConvolutionShape& shape = layer.convolution;
  const int64_t height = layer.kind == LayerShape::Kind::kLinear ? 1 : layer.height;
  QuantisedOptions plan_options;
  plan_options.traits = CurrentByteTraits(!options.pairs);
  plan_options.threads = options.threads;
  plan_options.block_bytes = options.block_bytes;
  plan_options.column_shift = options.column_shift;
  const bool depthwise = SuitsQuantisedDepthwise(shape, height, layer.width, options.threads);
  const SparseByteWeight weight = DrawBytes(shape, depthwise ? 1.0 : options.density, options.blocks, &random);
  timing->multiply_adds = static_cast<double>(weight.kept()) * static_cast<double>(shape.output_height(height)) *
                          static_cast<double>(shape.output_width(layer.width));
  if (layer.kind == LayerShape::Kind::kLinear) return TimeMatMul(layer, weight, plan_options, options, timing);
  if (depthwise) {
    QuantisedDepthwisePlan plan;
    return TimePlan(layer, weight, plan_options, options, MakeQuantisedDepthwisePlan, RunQuantisedDepthwise, &plan,
                    timing);
  }
  QuantisedConvolutionPlan plan;
  if (!TimePlan(layer, weight, plan_options, options, MakeQuantisedConvolutionPlan, RunQuantisedConvolution, &plan,
                timing)) {
    return false;
  }
  timing->padding = Padding(plan.entries, weight);
  timing->blocks = plan.blocks.size();
  return true;
}

}  // namespace gossamer
