// The tiles, channel blocks and slices of a planned convolution, whatever its sums are made of.
#if defined(GOSSAMER_KERNELS_TILE_LOOP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_TILE_LOOP_INL_H_
#undef GOSSAMER_KERNELS_TILE_LOOP_INL_H_
#else
#define GOSSAMER_KERNELS_TILE_LOOP_INL_H_
#endif

#include <type_traits>

#include "hwy/highway.h"
#include "format/half.h"
#include "kernels/column_shift-inl.h"
#include "kernels/product_plan.h"
#include "kernels/copy-inl.h"
#include "kernels/pixel_planes-inl.h"
#include "kernels/row_kernel.h"
#include "kernels/slice-inl.h"
#include "kernels/wide_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

// Of floats there are none.
template <class Lane>
void RunQuads(const LaneSpan&, const RowSlice&, const BlockStream&, const Lane*, const RowCall&) {}

// One slice of one block over all spans of a tile.
template <class Call, class Lane>
void RunSlice(const ProductPlan& plan, const TilePlan& tile, const RowSlice& slice, const BlockStream& stream,
              const Lane* input, const Call& call) {
  for (const LaneSpan& span : tile.spans) {
    if constexpr (std::is_same_v<Lane, Half>) {
      RunGroups(plan, span, slice, stream, input, call);
    } else if (plan.wide_rows) {
      WideKernel<Call>(span.lanes)(SpanCall(span, slice, stream, input, call));
    } else if (plan.column_shift) {
      ShiftKernel<Call>(span.lanes)(SpanCall(span, slice, stream, input, call));
    } else if (plan.sums_quads) {
      RunQuads(span, slice, stream, input, call);
    } else {
      RunGroups(plan, span, slice, stream, input, call);
    }
  }
}

// Lanes from a staged image row to the one below it, which the tile below will need; 0 if there is none.
inline int64_t RowAhead(const ProductPlan& plan, int64_t index) {
  const bool last = index + 2 * plan.output.segments >= plan.output.tiles();
  return last ? 0 : plan.input.segments * plan.shape.input_channels * plan.input.pitch;
}

// Slices [first, last) of tile `index` of an image: staged block by block, summed, finished as `call` says. Of `call`
// that and the bias are given. Calls done(rows, sums of the first of them) for rows that are summed; of floats they are then
// finished. `pixels` is told apart by threads, as scratch is.
template <class Call, class Lane, class Done>
void RunBlocks(const ProductPlan& plan, int64_t index, const Lane* image, Lane padding, size_t first, size_t last,
               Call call, Lane* scratch, StagedPixels* pixels, const Done& done) {
  using Staged = std::remove_const_t<std::remove_pointer_t<decltype(call.input)>>;
  Staged* const staged = reinterpret_cast<Staged*>(scratch);
  const TilePlan& tile = plan.tiles[static_cast<size_t>(index)];
  call.accumulator_pitch = plan.accumulator_pitch;
  call.compact = tile.compact;
  call.row_lanes = plan.row_lanes;
  call.row_pixels = tile.columns;
  call.image_rows = tile.rows;
  call.keep_after_right = &plan.keep_after_right;
  call.keep_after_left = &plan.keep_after_left;
  for (size_t b = 0; b < plan.blocks.size(); ++b) {
    const ChannelBlock& block = plan.blocks[b];
    const Lane* const channels = image + block.first_channel * plan.input.pitch;
    const Staged* input = staged;
    const bool copies = !plan.direct && !plan.pixel_planes && tile.wide_rows.empty();
    if constexpr (std::is_same_v<Staged, Lane>) {
      if (plan.direct) {
        input = channels + index * plan.shape.input_channels * plan.input.pitch;
      } else if (plan.pixel_planes) {
        input = StagePixels(plan, index, image, padding, staged, pixels);
      } else if (!copies) {
        StageWideRows(tile, channels, plan.input.pitch, block.channels, plan.channel_floats, RowAhead(plan, index),
                      padding, staged);
      }
    }
    if (copies) {
      StageBlock(tile, channels, plan.input.pitch, plan.shape.stride_width, block.channels, plan.channel_floats, padding,
                 staged);
    }
    call.first = block.first;
    call.last = block.last;
    for (size_t s = first; s < last; ++s) {
      const RowSlice& slice = plan.slice(tile, s);
      for (size_t i = slice.first_stream[b]; i < slice.first_stream[b + 1]; ++i) {
        const BlockStream& stream = slice.streams[i];
        call.accumulators = SumsOfRow0(plan, block, stream, scratch + plan.stage_floats);
        RunSlice(plan, tile, slice, stream, input, call);
        if (block.last) done(stream.finished, call.accumulators + stream.finished.first * plan.accumulator_pitch);
      }
    }
  }
}

// Calls run(image, tile, first slice, last slice) for items [first, last) of plan.items(images).
template <class Run>
void ForEachItem(const ProductPlan& plan, int64_t first, int64_t last, const Run& run) {
  const int64_t slices = plan.tile_slices;
  const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
  // (image, slice, tile) or (image, tile, slice).
  const bool slices_first = plan.output.dealing == Dealing::kChannels;
  for (int64_t item = first; item < last;) {
    const int64_t image = item / slices / tiles;
    if (slices_first) {
      const int64_t slice = item / tiles % slices;
      run(image, item % tiles, static_cast<size_t>(slice), static_cast<size_t>(slice + 1));
      ++item;
      continue;
    }
    const int64_t slice = item % slices;
    const int64_t end = HWY_MIN(slices, slice + last - item);
    run(image, item / slices % tiles, static_cast<size_t>(slice), static_cast<size_t>(end));
    item += end - slice;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_TILE_LOOP_INL_H_
