#include "kernels/quantised_matmul.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantised_matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/finish_outputs-inl.h"
#include "kernels/quantised_quad-inl.h"
#include "kernels/quantised_row-inl.h"
#include "kernels/quantised_token-inl.h"
#include "kernels/slice-inl.h"
#include "kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A thread's scratch, cut up.
struct MatMulScratch {
  int32_t* stage;
  int32_t* accumulators;
  int32_t* tokens;
  int32_t* output;
  int32_t* residual;

  MatMulScratch(const QuantisedMatMulPlan& plan, int32_t* scratch)
      : stage(scratch),
        accumulators(stage + plan.stage_lanes),
        tokens(accumulators + plan.product.scratch_lanes()),
        output(tokens + plan.token_lanes),
        residual(output + plan.output_lanes) {}
};

// Sums of slices [first, last) for the tokens in `rows`, whose lanes are those of panels but for the bits in kFlipped. Calls
// done(rows, sums of the first of them) for rows that are summed; with call.to kernels may have requantised them.
template <bool kQuads, bool kFlip, class Done>
void SumTile(const QuantisedMatMulPlan& plan, const TokenRows& rows, int64_t tokens, size_t first, size_t last,
             ByteCall<kQuads> call, const MatMulScratch& scratch, const Done& done) {
  const QuantisedConvolutionPlan& product = plan.product;
  const LaneSpan span{0, static_cast<int32_t>((tokens + kPixelQuantum - 1) / kPixelQuantum * kPixelQuantum)};
  call.bias = product.bias.data();
  call.accumulator_pitch = product.accumulator_pitch;
  call.row_lanes = product.row_lanes;
  call.row_pixels = tokens;
  call.image_rows = 1;
  for (size_t b = 0; b < product.blocks.size(); ++b) {
    const ChannelBlock& block = product.blocks[b];
    Transpose(rows.lanes + block.first_channel, rows.pitch, tokens, block.channels, scratch.stage, product.input.pitch);
    if (kFlip) FlipSigns(scratch.stage, block.channels * product.input.pitch);
    call.first = block.first;
    call.last = block.last && call.to != nullptr;
    for (size_t s = first; s < last; ++s) {
      const RowSlice& slice = product.slices[s];
      for (size_t i = slice.first_stream[b]; i < slice.first_stream[b + 1]; ++i) {
        const BlockStream& stream = slice.streams[i];
        call.accumulators = SumsOfRow0(product, block, stream, scratch.accumulators);
        if (product.sums_quads) {
          RunQuads(span, slice, stream, scratch.stage, call);
        } else {
          RunGroups(product, span, slice, stream, scratch.stage, call);
        }
        if (block.last) done(stream.finished, call.accumulators + stream.finished.first * product.accumulator_pitch);
      }
    }
  }
}

// Tokens [token, token + tokens), slices [first, last) of the outputs.
template <bool kQuads>
void MultiplyTile(const QuantisedMatMulPlan& plan, int64_t token, int64_t tokens, const uint8_t* input,
                  const ByteResidual& residual, uint8_t* output, size_t first, size_t last, const MatMulScratch& scratch) {
  const QuantisedConvolutionPlan& product = plan.product;
  const int64_t outputs = product.shape.output_channels;
  const int64_t pitch = product.output.pitch;
  const int64_t begin = plan.first_row[first], end = plan.first_row[last];
  if (begin == end) return;
  const int64_t first_quad = begin / kQuad, quads = QuadsOf(end) - first_quad;
  constexpr bool kFlip = kPanelOffset != 0;
  const int32_t* other = nullptr;
  if (residual.values != nullptr) {
    const int64_t step = residual.shared ? 0 : outputs;
    const uint8_t* const from = residual.values + token * step + begin;
    const TokenRows rows = RowsOfTokens(from, step, end - begin, tokens, scratch.output);
    int32_t* const lanes = scratch.residual + first_quad * pitch;
    Transpose(rows.lanes, rows.pitch, tokens, quads, lanes, pitch);
    if (kFlip) FlipSigns(lanes, quads * pitch);
    other = scratch.residual;
  }
  const TokenRows rows = RowsOfTokens(input + token * plan.inputs, plan.inputs, plan.inputs, tokens, scratch.tokens);
  const SumsToBytes to(product.requantisation, product.within_32_bits);
  const SummedTile summed = {1, tokens, tokens, product.accumulator_pitch};
  ByteCall<kQuads> call = {};
  call.to = &to;
  call.residual = other;
  call.output = scratch.output;
  call.output_pitch = pitch;
  SumTile<kQuads, kFlip>(plan, rows, tokens, first, last, call, scratch, [&](const Range& of_rows, const int32_t* sums) {
    FinishRows(product, to, of_rows, summed, sums, call);
  });
  int32_t* const lanes = scratch.output + first_quad * pitch;
  if (kFlip) FlipSigns(lanes, quads * pitch);
  uint8_t* const place = output + token * outputs + begin;
  if (outputs % kQuad == 0) {
    Transpose(lanes, pitch, quads, tokens, reinterpret_cast<int32_t*>(place), outputs / kQuad);
    return;
  }
  Transpose(lanes, pitch, quads, tokens, scratch.residual, quads);
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(place + t * outputs, scratch.residual + t * quads, static_cast<size_t>(end - begin));
  }
}

// Tokens of floats, each quantised by itself.
struct FloatTokens {
  static constexpr bool kFlip = false;
  const float* values;

  // Lanes of tokens [token, token + tokens), and what each of them stands for.
  TokenRows Read(const QuantisedMatMulPlan& plan, int64_t token, int64_t tokens, int32_t* lanes, float* scales) const {
    const int64_t quads = QuadsOf(plan.inputs);
    for (int64_t t = 0; t < tokens; ++t) {
      scales[t] = QuantiseToken(values + (token + t) * plan.inputs, plan.inputs,
                                reinterpret_cast<PanelByte*>(lanes + t * quads));
    }
    return {lanes, quads};
  }
  RowScale Of(const QuantisedMatMulPlan& plan, size_t row) const { return {plan.weight_scale[row], plan.bias[row], 0}; }
};

// Tokens of bytes that have one scale.
struct ByteTokens {
  static constexpr bool kFlip = kPanelOffset != 0;
  const uint8_t* values;
  ByteScale scale;

  TokenRows Read(const QuantisedMatMulPlan& plan, int64_t token, int64_t tokens, int32_t* lanes, float* scales) const {
    std::fill(scales, scales + tokens, 1.0f);
    return RowsOfTokens(values + token * plan.inputs, plan.inputs, plan.inputs, tokens, lanes);
  }
  // Sums are those of a zero point of 128. What is added stays within what CheckSums has bounded.
  RowScale Of(const QuantisedMatMulPlan& plan, size_t row) const {
    return {scale.scale * plan.weight_scale[row], plan.bias[row], (kMiddle - scale.zero_point) * plan.weight_sum[row]};
  }
};

// The same, of tokens whose sums become floats.
template <bool kQuads, class Tokens>
void MultiplyToFloats(const QuantisedMatMulPlan& plan, int64_t token, int64_t tokens, const Tokens& input,
                      const float* residual, float* output, size_t first, size_t last, const MatMulScratch& scratch) {
  const QuantisedConvolutionPlan& product = plan.product;
  const int64_t outputs = product.shape.output_channels;
  const int64_t pitch = product.accumulator_pitch;
  const int64_t begin = plan.first_row[first], end = plan.first_row[last];
  if (begin == end) return;
  float* const scales = reinterpret_cast<float*>(scratch.residual);
  const TokenRows lanes = input.Read(plan, token, tokens, scratch.tokens, scales);
  float* const numbers = reinterpret_cast<float*>(scratch.output);
  SumTile<kQuads, Tokens::kFlip>(
      plan, lanes, tokens, first, last, ByteCall<kQuads>{}, scratch, [&](const Range& rows, const int32_t* sums) {
        for (int64_t row = rows.first; row < rows.last; ++row) {
          DequantiseRow(sums + (row - rows.first) * pitch, input.Of(plan, static_cast<size_t>(row)), scales, tokens,
                        numbers + (row - begin) * product.output.pitch);
        }
      });
  const int64_t place = token * outputs + begin;
  if (residual == nullptr) {
    Transpose(numbers, product.output.pitch, end - begin, tokens, output + place, outputs);
  } else {
    TransposeAdd(numbers, product.output.pitch, end - begin, tokens, residual + place, output + place, outputs);
  }
  for (int64_t t = 0; t < tokens; ++t) FinishOutputs(plan.epilogue, output + place + t * outputs, end - begin);
}

void MultiplyItems(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input, const ByteResidual& residual,
                   uint8_t* output, int64_t first, int64_t last, int32_t* scratch) {
  const int64_t step = TokenStep(tokens, plan.token_tile, static_cast<int64_t>(kLanes));
  WithProducts(plan.product.quads, [&](auto quads) {
    ForEachTokenTile(tokens, step, plan.together(), first, last, [&](int64_t token, size_t slice, size_t end) {
      MultiplyTile<decltype(quads)::value>(plan, token, HWY_MIN(step, tokens - token), input, residual, output, slice,
                                           end, MatMulScratch(plan, scratch));
    });
  });
}

template <class Tokens>
void MultiplyItemsToFloats(const QuantisedMatMulPlan& plan, int64_t tokens, const Tokens& input, const float* residual,
                           float* output, int64_t first, int64_t last, int32_t* scratch) {
  const int64_t step = TokenStep(tokens, plan.token_tile, static_cast<int64_t>(kLanes));
  WithProducts(plan.product.quads, [&](auto quads) {
    ForEachTokenTile(tokens, step, plan.together(), first, last, [&](int64_t token, size_t slice, size_t end) {
      MultiplyToFloats<decltype(quads)::value>(plan, token, HWY_MIN(step, tokens - token), input, residual, output, slice,
                                               end, MatMulScratch(plan, scratch));
    });
  });
}

void MultiplyFloatItems(const QuantisedMatMulPlan& plan, int64_t tokens, const float* input, const float* residual,
                        float* output, int64_t first, int64_t last, int32_t* scratch) {
  MultiplyItemsToFloats(plan, tokens, FloatTokens{input}, residual, output, first, last, scratch);
}

void MultiplyByteItems(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input, const ByteScale& scale,
                       const float* residual, float* output, int64_t first, int64_t last, int32_t* scratch) {
  MultiplyItemsToFloats(plan, tokens, ByteTokens{input, scale}, residual, output, first, last, scratch);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(MultiplyItems);
HWY_EXPORT(MultiplyFloatItems);
HWY_EXPORT(MultiplyByteItems);

namespace {

std::vector<int32_t> RowSums(const SparseByteWeight& weight) {
  std::vector<int32_t> sums;
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    const auto begin = weight.value.begin();
    sums.push_back(std::accumulate(begin + weight.row_start[row], begin + weight.row_start[row + 1], int32_t{0}));
  }
  return sums;
}

}  // namespace

Status MakeQuantisedMatMulPlan(const SparseByteWeight& weight, const int32_t* bias, int32_t input_zero_point,
                               const Requantisation& requantisation, const QuantisedOptions& options,
                               QuantisedMatMulPlan* plan) {
  *plan = QuantisedMatMulPlan();
  ConvolutionShape shape;
  shape.input_channels = weight.columns;
  shape.output_channels = weight.rows;
  if (const Status status = CheckConvolution(shape, weight); !status.ok()) return status;
  plan->inputs = weight.columns;
  plan->token_tile = TokenTile(options.traits.kernel);
  if (const Status status = CheckImage(shape, 1, plan->token_tile); !status.ok()) return status;
  QuantisedConvolutionPlan& product = plan->product;
  if (const Status status = MakeQuantisedConvolutionPlan(shape, weight, bias, input_zero_point, requantisation, 1,
                                                         plan->token_tile, options, &product);
      !status.ok()) {
    return status;
  }
  plan->first_row = FirstRows(product);
  const auto whole_lines = [](int64_t lanes) { return (lanes + 32 + 15) / 16 * 16; };
  plan->stage_lanes = whole_lines(BlockChannels(product) * product.input.pitch);
  plan->token_lanes = whole_lines(plan->token_tile * QuadsOf(plan->inputs));
  // Floats of the dynamic product take a lane each.
  const int64_t rows = requantisation.scale.empty() ? shape.output_channels : product.output_quads();
  plan->output_lanes = whole_lines(rows * product.output.pitch);
  return Status::Ok();
}

Status MakeDynamicMatMulPlan(const SparseByteWeight& weight, const float* weight_scale, const float* bias,
                             const Epilogue& epilogue, const QuantisedOptions& options, QuantisedMatMulPlan* plan) {
  if (const Status status = MakeQuantisedMatMulPlan(weight, nullptr, kMiddle, Requantisation(), options, plan);
      !status.ok()) {
    return status;
  }
  const size_t outputs = static_cast<size_t>(weight.rows);
  plan->weight_scale.assign(weight_scale, weight_scale + outputs);
  plan->bias.assign(outputs, 0.0f);
  if (bias != nullptr) plan->bias.assign(bias, bias + outputs);
  plan->epilogue = epilogue;
  plan->weight_sum = RowSums(weight);
  return Status::Ok();
}

void RunQuantisedMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input,
                        const ByteResidual& residual, uint8_t* output, int64_t first, int64_t last, int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyItems)(plan, tokens, input, residual, output, first, last, scratch);
}

void RunDynamicMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const float* input, const float* residual,
                      float* output, int64_t first, int64_t last, int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyFloatItems)(plan, tokens, input, residual, output, first, last, scratch);
}

void RunDequantisedMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input, const ByteScale& scale,
                          const float* residual, float* output, int64_t first, int64_t last, int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyByteItems)(plan, tokens, input, scale, residual, output, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
