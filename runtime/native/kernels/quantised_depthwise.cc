#include "kernels/quantised_depthwise.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantised_depthwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/copy-inl.h"
#include "kernels/quantised_row-inl.h"
#include "kernels/table-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What one lane of channels is computed with.
struct LaneOfChannels {
  const TapQuad* taps;
  const TapQuad* end;
  const int32_t* bias;
  SumsToBytes to;  // whose scales are those of these four channels
};

#if HWY_TARGET == HWY_SCALAR
// Results of one lane. `residual` may be null.
template <bool kQuads>
HWY_INLINE void SumLanes(const LaneOfChannels& channels, const int32_t* staged, const int32_t* residual, int32_t* result) {
  ScaledVector scaled[kQuad];
  for (int64_t c = 0; c < kQuad; ++c) {
    uint32_t sum = static_cast<uint32_t>(channels.bias[c]);
    for (const TapQuad* quad = channels.taps; quad != channels.end; ++quad) {
      for (int64_t k = 0; k < kQuad; ++k) {
        PanelByte pixel[kQuad];
        std::memcpy(pixel, staged + quad->offset[k], sizeof(pixel));
        sum += static_cast<uint32_t>(pixel[c] * quad->weight[kQuad * c + k]);
      }
    }
    const FloatTag df;
    const ByteVector sums = hn::Set(ByteTag(), static_cast<int32_t>(sum));
    scaled[c] = hn::Mul(hn::ConvertTo(df, sums), hn::Set(df, channels.to.scale[c]));
    if (residual != nullptr) {
      const ByteVector other = hn::Set(ByteTag(), *residual);
      scaled[c] = WithResidual<Adds::kAny>(channels.to, scaled[c], ByteOfLanes(other, static_cast<size_t>(c)));
    }
  }
  *result = hn::GetLane(LanesOfRows(channels.to, false, scaled));
}
#else
// Of four vectors of lanes, one for each tap: lane 4 i + c of vector j holds the four taps of channel c of pixel 4 i + j.
HWY_INLINE void TransposeTaps(ByteVector (&v)[4]) {
  const ByteTag d;
  const hn::Repartition<uint8_t, ByteTag> d8;
  const hn::Repartition<uint16_t, ByteTag> d16;
  const auto bytes = [&](size_t k) HWY_ATTR { return hn::BitCast(d8, v[k]); };
  const auto low01 = hn::BitCast(d16, hn::InterleaveLower(d8, bytes(0), bytes(1)));
  const auto high01 = hn::BitCast(d16, hn::InterleaveUpper(d8, bytes(0), bytes(1)));
  const auto low23 = hn::BitCast(d16, hn::InterleaveLower(d8, bytes(2), bytes(3)));
  const auto high23 = hn::BitCast(d16, hn::InterleaveUpper(d8, bytes(2), bytes(3)));
  v[0] = hn::BitCast(d, hn::InterleaveLower(d16, low01, low23));
  v[1] = hn::BitCast(d, hn::InterleaveUpper(d16, low01, low23));
  v[2] = hn::BitCast(d, hn::InterleaveLower(d16, high01, high23));
  v[3] = hn::BitCast(d, hn::InterleaveUpper(d16, high01, high23));
}

// Results of one vector of lanes. `residual` may be null.
template <bool kQuads>
HWY_INLINE void SumLanes(const LaneOfChannels& channels, const int32_t* staged, const int32_t* residual, int32_t* result) {
  const ByteTag d;
  const FloatTag df;
  ByteVector sums[4];
  sums[0] = sums[1] = sums[2] = sums[3] = hn::LoadDup128(d, channels.bias);
  for (const TapQuad* quad = channels.taps; quad != channels.end; ++quad) {
    ByteVector taps[4];
    for (size_t k = 0; k < 4; ++k) taps[k] = hn::LoadU(d, staged + quad->offset[k]);
    TransposeTaps(taps);
    const hn::Repartition<int8_t, ByteTag> d8;
    const ByteVector weights = hn::BitCast(d, hn::LoadDup128(d8, quad->weight));
    for (size_t j = 0; j < 4; ++j) sums[j] = AddLanes<kQuads>(d, taps[j], weights, sums[j]);
  }
  const ScaledVector scale = hn::LoadDup128(df, channels.to.scale);
  ScaledVector scaled[4];
  for (size_t j = 0; j < 4; ++j) scaled[j] = hn::Mul(hn::ConvertTo(df, sums[j]), scale);
  if (residual != nullptr) {
    // Widened: each byte to the top of a lane.
    ByteVector other[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::LoadU(d, residual)};
    TransposeTaps(other);
    for (size_t j = 0; j < 4; ++j) {
      scaled[j] = WithResidual<Adds::kAny>(channels.to, scaled[j], ByteOfLanes(other[j], 3));
    }
  }
  hn::StoreU(hn::BitCast(d, NarrowedInBlocks(channels.to, false, scaled)), d, result);
}
#endif

// Some lanes of channels of one tile.
template <bool kQuads>
void RunTile(const QuantisedDepthwisePlan& plan, int64_t index, const int32_t* image, const int32_t* residual,
             int32_t* output, Range of_quads, int32_t* scratch) {
  const TilePlan& tile = plan.tiles[static_cast<size_t>(index)];
  const int64_t lanes = (tile.rows - 1) * plan.row_lanes + tile.columns;
  int32_t* const result = scratch + plan.stage_lanes;
  int32_t* const other = residual == nullptr ? nullptr : result + plan.result_lanes;
  for (int64_t quad = of_quads.first; quad < of_quads.last; ++quad) {
    StageBlock(tile, image + quad * plan.input.pitch, plan.input.pitch, plan.shape.stride_width, 1, 0, plan.padding,
               scratch);
    const int64_t place = quad * plan.output.pitch;
    for (int64_t y = 0; other != nullptr && y < tile.rows; ++y) {
      std::memcpy(other + y * plan.row_lanes, residual + place + y * tile.columns,
                  static_cast<size_t>(tile.columns) * sizeof(int32_t));
    }
    LaneOfChannels channels = {plan.taps.data() + plan.first_tap[static_cast<size_t>(quad)],
                               plan.taps.data() + plan.first_tap[static_cast<size_t>(quad) + 1],
                               plan.bias.data() + kQuad * quad, SumsToBytes(plan.requantisation, plan.within_32_bits)};
    channels.to.scale += kQuad * quad;
    for (int64_t lane = 0; lane < lanes; lane += static_cast<int64_t>(kLanes)) {
      SumLanes<kQuads>(channels, scratch + lane, other == nullptr ? nullptr : other + lane, result + lane);
    }
    if (!plan.table.empty()) LookUp(plan.table.data(), reinterpret_cast<PanelByte*>(result), kQuad * lanes);
    for (int64_t y = 0; y < tile.rows; ++y) {
      std::memcpy(output + place + y * tile.columns, result + y * plan.row_lanes,
                  static_cast<size_t>(tile.columns) * sizeof(int32_t));
    }
  }
}

template <bool kQuads>
void RunItems(const QuantisedDepthwisePlan& plan, const int32_t* input, const int32_t* residual, int32_t* output,
              const ImageStrides& strides, int64_t first, int64_t last, int32_t* scratch) {
  const int64_t tiles = plan.output.tiles();
  const int64_t quads = plan.shape.output_channels;
  for (int64_t item = first; item < last; ++item) {
    const int64_t index = item / plan.parts % tiles;
    const int64_t image = item / plan.parts / tiles;
    const int64_t place = image * strides.output + index * quads * plan.output.pitch;
    RunTile<kQuads>(plan, index, input + image * strides.input, residual ? residual + place : nullptr, output + place,
                    ShareOf(quads, plan.parts, item % plan.parts), scratch);
  }
}

void RunDepthwiseHere(const QuantisedDepthwisePlan& plan, const int32_t* input, const int32_t* residual,
                      int32_t* output, const ImageStrides& strides, int64_t first, int64_t last, int32_t* scratch) {
  WithProducts(plan.quads, [&](auto quads) {
    RunItems<decltype(quads)::value>(plan, input, residual, output, strides, first, last, scratch);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(RunDepthwiseHere);

void RunQuantisedDepthwise(const QuantisedDepthwisePlan& plan, const int32_t* input, const int32_t* residual,
                           int32_t* output, const ImageStrides& strides, int64_t first, int64_t last,
                           int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(RunDepthwiseHere)(plan, input, residual, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
