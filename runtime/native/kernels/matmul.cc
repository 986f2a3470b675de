#include "kernels/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/finish_outputs-inl.h"
#include "kernels/half_row-inl.h"
#include "kernels/slice-inl.h"
#include "kernels/token_tiles.h"
#include "kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Tokens [token, token + tokens), slices [first, last) of the outputs.
template <class Call>
void MultiplyTile(const MatMulPlan& plan, int64_t token, int64_t tokens, const float* input, const float* residual,
                  float* output, size_t first, size_t last, Call call, float* scratch) {
  using Staged = std::remove_const_t<std::remove_pointer_t<decltype(call.input)>>;
  Staged* const staged = reinterpret_cast<Staged*>(scratch);
  const ConvolutionPlan& product = plan.product;
  const int64_t inputs = product.shape.input_channels;
  const int64_t outputs = product.shape.output_channels;
  const LaneSpan span{0, static_cast<int32_t>((tokens + kPixelQuantum - 1) / kPixelQuantum * kPixelQuantum)};
  float* const panel = scratch + plan.stage_floats + product.accumulator_floats;
  call.bias = product.bias.data();
  call.accumulators = scratch + plan.stage_floats;
  call.accumulator_pitch = product.accumulator_pitch;
  call.output = panel;
  call.output_pitch = product.output.pitch;
  // With a residual the sums are not finished before they are transposed.
  call.epilogue = residual ? Epilogue() : product.epilogue;
  call.row_lanes = product.row_lanes;
  call.row_pixels = tokens;
  call.image_rows = 1;

  for (size_t b = 0; b < product.blocks.size(); ++b) {
    const ChannelBlock& block = product.blocks[b];
    Transpose(input + token * inputs + block.first_channel, inputs, tokens, block.channels, staged,
              product.channel_floats);
    call.first = block.first;
    call.last = block.last;
    for (size_t s = first; s < last; ++s) {
      const RowSlice& slice = product.slices[s];
      RunGroups(product, span, slice, slice.streams[slice.first_stream[b]], staged, call);
    }
  }
  const int64_t begin = plan.first_row[first];
  const int64_t end = plan.first_row[last];
  const int64_t place = token * outputs + begin;
  const float* sums = panel + begin * product.output.pitch;
  if (residual == nullptr) {
    Transpose(sums, product.output.pitch, end - begin, tokens, output + place, outputs);
    return;
  }
  TransposeAdd(sums, product.output.pitch, end - begin, tokens, residual + place, output + place, outputs);
  for (int64_t t = 0; t < tokens; ++t) FinishOutputs(product.epilogue, output + place + t * outputs, end - begin);
}

void MultiplyItems(const MatMulPlan& plan, int64_t tokens, const float* input, const float* residual, float* output,
                   int64_t first, int64_t last, float* scratch) {
  const int64_t step = TokenStep(tokens, plan.token_tile, static_cast<int64_t>(kLanes));
  WithArithmetic(plan.product, [&](auto call) {
    ForEachTokenTile(tokens, step, plan.together(), first, last, [&](int64_t token, size_t slice, size_t end) {
      MultiplyTile(plan, token, HWY_MIN(step, tokens - token), input, residual, output, slice, end, call, scratch);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(MultiplyItems);

Status MakeMatMulPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue,
                      const PlanOptions& options, MatMulPlan* plan) {
  ConvolutionShape shape;
  shape.input_channels = weight.columns;
  shape.output_channels = weight.rows;
  if (const Status status = CheckConvolution(shape, weight); !status.ok()) return status;
  plan->token_tile = TokenTile(options.traits);
  if (const Status status = CheckImage(shape, 1, plan->token_tile); !status.ok()) return status;
  ConvolutionPlan& product = plan->product;
  if (const Status status =
          MakeConvolutionPlan(shape, weight, bias, epilogue, 1, plan->token_tile, options, &product);
      !status.ok()) {
    return status;
  }
  plan->stage_floats = BlockChannels(product) * product.channel_floats + 32;
  plan->stage_floats += -plan->stage_floats & 15;
  plan->output_floats = shape.output_channels * product.output.pitch + 32;
  plan->first_row = FirstRows(product);
  return Status::Ok();
}

void RunMatMul(const MatMulPlan& plan, int64_t tokens, const float* input, const float* residual, float* output,
               int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyItems)(plan, tokens, input, residual, output, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
