#include "kernels/convolution.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convolution.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/column_shift-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/slice-inl.h"
#include "kernels/wide_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

KernelTraits CurrentTraits() { return Traits(); }
const char* TargetNameHere() { return hwy::TargetName(HWY_TARGET); }

// One slice of one block over all spans of a tile.
void RunSlice(const ConvolutionPlan& plan, const TilePlan& tile, const RowSlice& slice, const BlockStream& stream,
              const float* input, const RowCall& call) {
  for (const LaneSpan& span : tile.spans) {
    if (plan.wide_rows) {
      WideKernel(span.lanes)(SpanCall(span, slice, stream, input, call));
    } else if (plan.column_shift) {
      ShiftKernel(span.lanes)(SpanCall(span, slice, stream, input, call));
    } else {
      RunGroups(plan, span, slice, stream, input, call);
    }
  }
}

// Floats from a staged image row to the one below it, which the tile below will need; 0 if there is none.
int64_t RowAhead(const ConvolutionPlan& plan, int64_t index) {
  const bool last = index + 2 * plan.output.segments >= plan.output.tiles();
  return last ? 0 : plan.input.segments * plan.shape.input_channels * plan.input.pitch;
}

// Outputs far beyond the caches are fetched a tile ahead, since storing to a line that is not there waits for it: 4% of
// VGG-16, whose first layers write 12.8 MB. For ResNet-50's 3.2 MB it costs 0.3 to 1%.
int64_t Ahead(const ConvolutionPlan& plan, int64_t index) {
  constexpr int64_t kNearFloats = 1'000'000;
  const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
  const int64_t stride = plan.shape.output_channels * plan.output.pitch;
  return index + 1 < tiles && tiles * stride > kNearFloats ? stride : 0;
}

// Slices [first, last) of one tile of one image.
void RunTile(const ConvolutionPlan& plan, int64_t index, const float* image, const float* residual, float* output,
             size_t first, size_t last, float* scratch) {
  const TilePlan& tile = plan.tiles[static_cast<size_t>(index)];
  const int64_t tile_output = index * plan.shape.output_channels * plan.output.pitch;
  RowCall call = {};
  call.bias = plan.bias.data();
  call.accumulators = scratch + plan.stage_floats;
  call.accumulator_pitch = plan.accumulator_pitch;
  call.output = output + tile_output;
  call.residual = residual ? residual + tile_output : nullptr;
  call.output_pitch = plan.output.pitch;
  call.ahead = Ahead(plan, index);
  call.epilogue = plan.epilogue;
  call.compact = tile.compact;
  call.row_lanes = plan.row_lanes;
  call.row_pixels = tile.columns;
  call.image_rows = tile.rows;
  call.keep_after_right = &plan.keep_after_right;
  call.keep_after_left = &plan.keep_after_left;

  for (size_t b = 0; b < plan.blocks.size(); ++b) {
    const ChannelBlock& block = plan.blocks[b];
    const float* input;
    if (plan.direct) {
      input = image + (index * plan.shape.input_channels + block.first_channel) * plan.input.pitch;
    } else if (!tile.wide_rows.empty()) {
      StageWideRows(tile, image + block.first_channel * plan.input.pitch, plan.input.pitch, block.channels,
                    plan.channel_floats, RowAhead(plan, index), scratch);
      input = scratch;
    } else {
      StageBlock(tile, image + block.first_channel * plan.input.pitch, plan.input.pitch, plan.shape.stride_width,
                 block.channels, plan.channel_floats, scratch);
      input = scratch;
    }
    call.first = block.first;
    call.last = block.last;
    for (size_t s = first; s < last; ++s) {
      const RowSlice& slice = plan.slice(tile, s);
      RunSlice(plan, tile, slice, slice.streams[b], input, call);
    }
  }
}

void RunItems(const ConvolutionPlan& plan, const float* input, const float* residual, float* output,
              const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  const int64_t slices = plan.tile_slices;
  const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
  const auto run = [&](int64_t image, int64_t tile, int64_t slice, int64_t end) {
    RunTile(plan, tile, input + image * strides.input, residual ? residual + image * strides.output : nullptr,
            output + image * strides.output, static_cast<size_t>(slice), static_cast<size_t>(end), scratch);
  };
  // (image, slice, tile) or (image, tile, slice).
  const bool slices_first = plan.output.dealing == Dealing::kChannels;
  for (int64_t item = first; item < last;) {
    const int64_t image = item / slices / tiles;
    if (slices_first) {
      const int64_t slice = item / tiles % slices;
      run(image, item % tiles, slice, slice + 1);
      ++item;
      continue;
    }
    const int64_t slice = item % slices;
    const int64_t end = HWY_MIN(slices, slice + last - item);
    run(image, item / slices % tiles, slice, end);
    item += end - slice;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(CurrentTraits);
HWY_EXPORT(TargetNameHere);
HWY_EXPORT(RunItems);

KernelTraits CurrentKernelTraits() { return HWY_DYNAMIC_DISPATCH(CurrentTraits)(); }
const char* CurrentTargetName() { return HWY_DYNAMIC_DISPATCH(TargetNameHere)(); }

void RunConvolution(const ConvolutionPlan& plan, const float* input, const float* residual, float* output,
                    const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(RunItems)(plan, input, residual, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
