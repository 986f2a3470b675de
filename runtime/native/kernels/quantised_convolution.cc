#include "kernels/quantised_convolution.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantised_convolution.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/finish-inl.h"
#include "kernels/interleave-inl.h"
#include "kernels/quantised_row-inl.h"
#include "kernels/table-inl.h"
#include "kernels/tile_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

ByteTraits TraitsHere(bool quads) {
  ByteTraits traits;
  traits.quads = GOSSAMER_HAS_QUADS && (quads || !GOSSAMER_HAS_PAIRS);
#if HWY_TARGET == HWY_AVX3
  traits.quads = traits.quads && HasQuadProducts(QuadProducts::kAvx512Vnni);
#elif HWY_TARGET == HWY_AVX2
  traits.quads = traits.quads && HasQuadProducts(QuadProducts::kAvxVnni);
#elif HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  traits.quads = traits.quads && HasQuadProducts(QuadProducts::kArmDotProduct);
#endif
  traits.split_pairs = !traits.quads;
  traits.kernel = traits.quads ? ProductTraits<true>() : ProductTraits<false>();
  return traits;
}

// From the rows' planes to the output's lanes.
void InterleaveTile(const QuantisedConvolutionPlan& plan, const TilePlan& tile, PanelByte* planes, size_t first,
                    size_t last, PanelByte* output) {
  const int64_t row_lanes = tile.compact ? plan.row_lanes : tile.columns;
  const int64_t lanes = (tile.rows - 1) * row_lanes + tile.columns;
  for (size_t s = first; s < last; ++s) {
    const std::vector<int32_t>& quads = plan.slice_quads[static_cast<size_t>(tile.window * plan.tile_slices) + s];
    for (size_t i = 0; i < quads.size(); ++i) {
      const int64_t quad = quads[i];
      PanelByte* const from = planes + kQuad * quad * plan.plane_pitch;
      if (!plan.table.empty()) {
        for (int64_t c = 0; c < kQuad; ++c) LookUp(plan.table.data(), from + c * plan.plane_pitch, lanes);
      }
      PanelByte* const to = output + kQuad * quad * plan.output.pitch;
      // What is written too much the next row or lane writes over: less than kInterleaved pixels, so not beyond that lane.
      const bool next_follows =
          i + 1 < quads.size() && quads[i + 1] == quad + 1 && plan.output.pitch >= kInterleaved;
      if (!tile.compact) {
        Interleave(from, plan.plane_pitch, tile.rows * tile.columns, next_follows, to);
        continue;
      }
      for (int64_t y = 0; y < tile.rows; ++y) {
        Interleave(from + y * row_lanes, plan.plane_pitch, tile.columns, next_follows, to + kQuad * y * tile.columns);
      }
    }
  }
}

template <bool kQuads>
void RunItems(const QuantisedConvolutionPlan& plan, const int32_t* input, const int32_t* residual, int32_t* output,
              const ImageStrides& strides, int64_t first, int64_t last, int32_t* scratch) {
  PanelByte* const planes = reinterpret_cast<PanelByte*>(scratch + plan.scratch_floats());
  // Channels that fill up the last lane.
  std::memset(planes + plan.shape.output_channels * plan.plane_pitch,
              static_cast<uint8_t>(PanelByteOf(plan.requantisation.zero_point)),
              static_cast<size_t>((kQuad * plan.output_quads() - plan.shape.output_channels) * plan.plane_pitch));
  ForEachItem(plan, first, last, [&](int64_t image, int64_t index, size_t slice, size_t end) {
    const TilePlan& tile = plan.tiles[static_cast<size_t>(index)];
    const int64_t place = image * strides.output + index * plan.output_quads() * plan.output.pitch;
    const int64_t window = tile.window * plan.shape.output_channels;
    ByteCall<kQuads> call = {};
    call.bias = plan.bias.data() + window;
    call.planes = planes;
    call.plane_pitch = plan.plane_pitch;
    call.to = SumsToBytes(plan.requantisation);
    call.residual = residual ? residual + place : nullptr;
    call.residual_pitch = plan.output.pitch;
    if (!plan.left_padding.empty()) {
      call.left_padding = plan.left_padding.data() + window;
      call.right_padding = plan.right_padding.data() + window;
    }
    RunBlocks(plan, index, input + image * strides.input, plan.padding, slice, end, call, scratch);
    InterleaveTile(plan, tile, planes, slice, end, reinterpret_cast<PanelByte*>(output + place));
  });
}

void RunHere(const QuantisedConvolutionPlan& plan, const int32_t* input, const int32_t* residual, int32_t* output,
             const ImageStrides& strides, int64_t first, int64_t last, int32_t* scratch) {
#if GOSSAMER_HAS_QUADS
  if (plan.quads) return RunItems<true>(plan, input, residual, output, strides, first, last, scratch);
#endif
#if GOSSAMER_HAS_PAIRS
  if (!plan.quads) return RunItems<false>(plan, input, residual, output, strides, first, last, scratch);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(TraitsHere);
HWY_EXPORT(RunHere);

ByteTraits CurrentByteTraits(bool quads) { return HWY_DYNAMIC_DISPATCH(TraitsHere)(quads); }

void RunQuantisedConvolution(const QuantisedConvolutionPlan& plan, const int32_t* input, const int32_t* residual,
                             int32_t* output, const ImageStrides& strides, int64_t first, int64_t last,
                             int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(RunHere)(plan, input, residual, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
