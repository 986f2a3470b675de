#include "fuzz/quantised_fuzz.h"

#include <vector>

#include "kernels/max_pool.h"
#include "kernels/quantised_average_pool.h"
#include "kernels/quantised_convolution.h"
#include "kernels/quantised_depthwise.h"
#include "kernels/quantised_matmul.h"
#include "kernels/quantised_reshape.h"
#include "tests/guarded_floats.h"

namespace gossamer {
namespace {

// Lanes that end at a page that must not be touched.
class GuardedLanes {
 public:
  explicit GuardedLanes(int64_t count) : memory_(count) {}
  int32_t* get() const { return reinterpret_cast<int32_t*>(memory_.get()); }
  uint8_t* bytes() const { return reinterpret_cast<uint8_t*>(memory_.get()); }

 private:
  GuardedFloats memory_;
};

GuardedLanes Scratch(int64_t lanes) { return GuardedLanes((lanes + 15) / 16 * 16); }

Requantisation TakeRequantisation(int64_t channels, Recipe* recipe) {
  Requantisation to;
  to.scale.assign(static_cast<size_t>(channels), 0.01f);
  to.zero_point = static_cast<int32_t>(recipe->Take(256));
  to.residual_scale = 0.5f;
  to.sum_step = 0.75f;
  if (recipe->Take(2)) to.table.assign(256, 3);
  return to;
}

QuantisedOptions TakeOptions(Recipe* recipe) {
  QuantisedOptions options;
  options.traits = CurrentByteTraits(recipe->Take(2) == 0);
  options.threads = 1 + recipe->Take(4);
  options.block_bytes = 64 * recipe->Take(256);
  return options;
}

template <class Plan, class Run>
void RunPlan(const Plan& plan, const ConvolutionShape& shape, bool with_residual, const Run& run) {
  const ImageStrides strides{QuantisedStride(plan.input, shape.input_channels),
                             QuantisedStride(plan.output, shape.output_channels)};
  if (strides.input > kMostFloats || strides.output > kMostFloats || plan.scratch_lanes() > 4 * kMostFloats) return;
  const GuardedLanes input(strides.input), residual(strides.output), output(strides.output);
  const GuardedLanes scratch = Scratch(plan.scratch_lanes());
  const int64_t items = plan.items(1);
  for (const Range part : {Range{items / 2, items}, Range{0, items / 2}}) {
    run(plan, input.get(), with_residual ? residual.get() : nullptr, output.get(), strides, part.first, part.last,
        scratch.get());
  }
}

void FuzzConvolution(const SparseByteWeight& weight, Recipe* recipe) {
  const ConvolutionShape shape = TakeShape(weight, recipe);
  const int64_t height = recipe->Take(64), width = recipe->Take(256);
  if (!CheckConvolution(shape, weight).ok() || !CheckImage(shape, height, width).ok()) return;
  const int64_t pixels = shape.output_height(height) * shape.output_width(width);
  if (pixels > kMostFloats || weight.kept() * static_cast<size_t>(pixels) > kMostProducts) return;
  const Requantisation to = TakeRequantisation(weight.rows, recipe);
  if (!CheckSums(weight, nullptr).ok() || !CheckRequantisation(to, weight.rows).ok()) return;
  QuantisedOptions options = TakeOptions(recipe);
  const int64_t flags = recipe->Take(4);
  options.column_shift = flags & 1;
  const bool with_residual = flags & 2;
  const int32_t zero_point = static_cast<int32_t>(height);
  if (SuitsQuantisedDepthwise(shape, height, width, options.threads)) {
    QuantisedDepthwisePlan plan;
    if (MakeQuantisedDepthwisePlan(shape, weight, nullptr, zero_point, to, height, width, options, &plan).ok()) {
      RunPlan(plan, shape, with_residual, RunQuantisedDepthwise);
    }
    return;
  }
  QuantisedConvolutionPlan plan;
  if (MakeQuantisedConvolutionPlan(shape, weight, nullptr, zero_point, to, height, width, options, &plan).ok()) {
    RunPlan(plan, shape, with_residual, RunQuantisedConvolution);
  }
}

void FuzzMatMul(const SparseByteWeight& weight, Recipe* recipe) {
  const int64_t tokens = 1 + recipe->Take(256);
  if (weight.rows * tokens > kMostFloats || weight.columns * tokens > kMostFloats) return;
  if (!CheckSums(weight, nullptr).ok()) return;
  // Static, dynamic, dequantised.
  const int64_t kind = recipe->Take(3);
  const Requantisation to = TakeRequantisation(weight.rows, recipe);
  const QuantisedOptions options = TakeOptions(recipe);
  const bool with_residual = recipe->Take(2);
  QuantisedMatMulPlan plan;
  const Status made = kind != 0 ? MakeDynamicMatMulPlan(weight, to.scale.data(), nullptr, Epilogue(), options, &plan)
                                : MakeQuantisedMatMulPlan(weight, nullptr, 7, to, options, &plan);
  if (!made.ok() || plan.product.entries * static_cast<size_t>(tokens) > kMostProducts) return;
  if (plan.scratch_lanes() > 4 * kMostFloats) return;
  const GuardedLanes scratch = Scratch(plan.scratch_lanes());
  if (kind != 0) {
    const GuardedFloats input(weight.columns * tokens), residual(weight.rows * tokens), output(weight.rows * tokens);
    const float* const other = with_residual ? residual.get() : nullptr;
    if (kind == 1) {
      RunDynamicMatMul(plan, tokens, input.get(), other, output.get(), 0, plan.items(tokens), scratch.get());
      return;
    }
    const GuardedLanes bytes(QuadsOf(weight.columns * tokens));
    RunDequantisedMatMul(plan, tokens, bytes.bytes(), {0.5f, 7}, other, output.get(), 0, plan.items(tokens), scratch.get());
    return;
  }
  const GuardedLanes input(QuadsOf(weight.columns * tokens)), residual(QuadsOf(weight.rows * tokens)),
      output(QuadsOf(weight.rows * tokens));
  const bool shared = with_residual && recipe->Take(2);
  const GuardedLanes row(QuadsOf(weight.rows));
  const uint8_t* const other = shared ? row.bytes() + 4 * QuadsOf(weight.rows) - weight.rows : residual.bytes();
  RunQuantisedMatMul(plan, tokens, input.bytes(), {with_residual ? other : nullptr, shared}, output.bytes(), 0,
                     plan.items(tokens), scratch.get());
}

// Pooling has no weight; the shape of one says how many channels there are and how large its kernel is.
void FuzzPools(const SparseByteWeight& weight, Recipe* recipe) {
  ConvolutionShape shape = TakeShape(weight, recipe);
  shape.groups = 1;
  shape.input_channels = shape.output_channels;
  const int64_t height = recipe->Take(64), width = recipe->Take(256);
  if (!CheckNumbers(shape).ok() || !CheckImage(shape, height, width).ok()) return;
  const int64_t pixels = shape.output_height(height) * shape.output_width(width);
  if (shape.output_channels * pixels * shape.taps() > static_cast<int64_t>(kMostProducts)) return;
  const AveragePoolPlan average = MakeAveragePoolPlan(shape, height, width, 1 + recipe->Take(4));
  const int64_t channels = shape.input_channels;
  const int64_t in = QuantisedStride(average.input, channels), out = QuantisedStride(average.output, channels);
  if (in > kMostFloats || out > kMostFloats) return;
  const GuardedLanes input(in), output(out);
  RunAveragePool(average, input.get(), output.get(), {}, 0, average.items(1));

  ConvolutionShape lanes = shape;
  lanes.input_channels = lanes.output_channels = QuadsOf(channels);
  MaxPoolPlan most;
  if (!MakeMaxPoolPlan(lanes, height, width, 1 + recipe->Take(4), &most).ok()) return;
  if (most.scratch_floats() > kMostFloats) return;
  const GuardedLanes scratch = Scratch(most.scratch_floats());
  const GuardedLanes from(QuantisedStride(most.input, channels)), to(QuantisedStride(most.output, channels));
  RunQuantisedMaxPool(most, from.get(), to.get(), {}, 0, most.items(1), scratch.get());

  const ConcatInput part{channels, recipe->Take(8), {}};
  const int64_t all = part.first_channel + channels;
  const GuardedLanes joined(QuantisedStride(average.input, all));
  CopyChannels(average.input, part, all, input.get(), {0, average.input.tiles()}, joined.get());

  const int64_t rows = 1 + recipe->Take(3), columns = 1 + recipe->Take(3);
  const PanelLayout larger = MakePanelLayout(height * rows, width * columns);
  if (QuantisedStride(larger, channels) > kMostFloats) return;
  const PanelLayout layout = MakePanelLayout(height, width);
  const GuardedLanes small(QuantisedStride(layout, channels)), large(QuantisedStride(larger, channels));
  RepeatPixels(layout, larger, rows, columns, QuadsOf(channels), small.get(), {0, QuadsOf(channels)}, large.get());
}

}  // namespace

void FuzzQuantised(const SparseByteWeight& weight, Recipe* recipe) {
  switch (recipe->Take(5)) {
    case 0:
    case 1:
      return FuzzMatMul(weight, recipe);
    case 3:
      return FuzzPools(weight, recipe);
    default:
      return FuzzConvolution(weight, recipe);
  }
}

}  // namespace gossamer
