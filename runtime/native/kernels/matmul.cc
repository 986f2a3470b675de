#include "kernels/matmul.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/slice-inl.h"
#include "kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

// Slices [first, last) of the outputs for one tile of tokens.
void MultiplyTile(const MatMulPlan& plan, int64_t index, const float* input, float* output, size_t first, size_t last,
                  float* scratch) {
  const ConvolutionPlan& product = plan.product;
  const TilePlan& tile = product.tiles[static_cast<size_t>(index)];
  const int64_t token = product.output.tile(index).column;
  const int64_t inputs = product.shape.input_channels;
  const int64_t outputs = product.shape.output_channels;
  float* const panel = scratch + plan.stage_floats + product.accumulator_floats;
  RowCall call = {};
  call.bias = product.bias.data();
  call.accumulators = scratch + plan.stage_floats;
  call.accumulator_pitch = product.accumulator_pitch;
  call.output = panel;
  call.output_pitch = product.output.pitch;
  call.epilogue = product.epilogue;
  call.row_lanes = product.row_lanes;
  call.row_pixels = tile.columns;
  call.image_rows = 1;

  for (size_t b = 0; b < product.blocks.size(); ++b) {
    const ChannelBlock& block = product.blocks[b];
    Transpose(input + token * inputs + block.first_channel, inputs, tile.columns, block.channels, scratch,
              product.input.pitch);
    call.first = block.first;
    call.last = block.last;
    for (size_t s = first; s < last; ++s) {
      RunSlice(product, tile, product.slices[s], product.slices[s].streams[b], scratch, call);
    }
  }
  const int64_t begin = plan.first_row[first];
  const int64_t end = plan.first_row[last];
  Transpose(panel + begin * product.output.pitch, product.output.pitch, end - begin, tile.columns,
            output + token * outputs + begin, outputs);
}

void MultiplyItems(const MatMulPlan& plan, const float* input, float* output, int64_t first, int64_t last,
                   float* scratch) {
  const int64_t slices = static_cast<int64_t>(plan.product.slices.size());
  for (int64_t item = first; item < last;) {
    const int64_t slice = item % slices;
    const int64_t end = HWY_MIN(slices, slice + last - item);
    MultiplyTile(plan, item / slices, input, output, static_cast<size_t>(slice), static_cast<size_t>(end), scratch);
    item += end - slice;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(MultiplyItems);

Status MakeMatMulPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue, int64_t tokens,
                      const PlanOptions& options, MatMulPlan* plan) {
  ConvolutionShape shape;
  shape.input_channels = weight.columns;
  shape.output_channels = weight.rows;
  if (const Status status = CheckConvolution(shape, weight); !status.ok()) return status;
  if (const Status status = CheckImage(shape, 1, tokens); !status.ok()) return status;
  ConvolutionPlan& product = plan->product;
  if (const Status status = MakeConvolutionPlan(shape, weight, bias, epilogue, 1, tokens, options, &product);
      !status.ok()) {
    return status;
  }
  int64_t channels = 0;
  for (const ChannelBlock& block : product.blocks) channels = std::max(channels, block.channels);
  plan->stage_floats = channels * product.input.pitch + 32;
  plan->stage_floats += -plan->stage_floats & 15;
  plan->output_floats = shape.output_channels * product.output.pitch + 32;

  // A slice without rows begins where the next one does.
  plan->first_row.assign(product.slices.size() + 1, shape.output_channels);
  for (size_t slice = product.slices.size(); slice-- > 0;) {
    const std::vector<int32_t>& rows = product.slices[slice].rows;
    const auto least = std::min_element(rows.begin(), rows.end());
    plan->first_row[slice] = least == rows.end() ? plan->first_row[slice + 1] : *least;
  }
  return Status::Ok();
}

void RunMatMul(const MatMulPlan& plan, const float* input, float* output, int64_t first, int64_t last,
               float* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyItems)(plan, input, output, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
