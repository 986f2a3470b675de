// What becomes of a row of integer sums: requantised (requantisation.h), one byte a pixel, into a plane of its own. Four
// planes are interleaved into lanes of the panel once all rows of a tile are done (interleave-inl.h), because rows are
// summed in the order of their numbers of nonzeros.
#if defined(GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/copy-inl.h"
#include "kernels/fetch.h"
#include "kernels/quantised_product-inl.h"
#include "kernels/requantisation.h"
#include "kernels/row_kernel.h"
#include "kernels/spmm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What is the same for all rows. Zero points and bounds are those of panels' bytes.
struct SumsToBytes {
  const float* scale;  // of each row
  int16_t zero_point;
  PanelByte lower;
  PanelByte upper;
  float residual_scale;
  int32_t residual_zero_point;
  float sum_step;  // 0: sums are not rounded before the residual is added
  float sum_lower;
  float sum_upper;

  SumsToBytes() = default;
  explicit SumsToBytes(const Requantisation& output)
      : scale(output.scale.data()),
        zero_point(static_cast<int16_t>(output.zero_point - kPanelOffset)),
        lower(PanelByteOf(output.lower)),
        upper(PanelByteOf(output.upper)),
        residual_scale(output.residual_scale),
        residual_zero_point(output.residual_zero_point - kPanelOffset),
        sum_step(output.sum_step),
        sum_lower(output.sum_lower),
        sum_upper(output.sum_upper) {}
};

template <bool kQuads>
struct ByteCall : ProductCall<int32_t> {
  PanelByte* planes;  // of row 0, first lane of the tile
  int64_t plane_pitch;
  SumsToBytes to;
  const int32_t* residual;  // of the first quad of rows, first pixel of the tile; or null
  int64_t residual_pitch;
  // Of each row, what padding adds to the columns beside it; null where that is nothing.
  const int32_t* left_padding;
  const int32_t* right_padding;
};

template <bool kQuads>
struct CallOf<ByteCall<kQuads>> {
  using Product = ByteProduct<kQuads>;
  static constexpr KernelTraits kTraits = ProductTraits<kQuads>();
};

using ScaledVector = hn::Vec<FloatTag>;

// The row's byte of lanes of a panel, widened.
HWY_INLINE ByteVector ByteOfLanes(ByteVector lanes, int shift_to_top) {
  const ByteTag d;
  const auto top = hn::ShiftLeftSame(lanes, shift_to_top);
  if constexpr (std::is_signed_v<PanelByte>) {
    return hn::ShiftRight<24>(top);
  } else {
    return hn::BitCast(d, hn::ShiftRight<24>(hn::BitCast(hn::RebindToUnsigned<ByteTag>(), top)));
  }
}

// What a residual is added to.
HWY_INLINE ScaledVector SumOfSteps(const SumsToBytes& to, ScaledVector scaled) {
  if (to.sum_step == 0.0f) return scaled;
  const FloatTag df;
  const auto rounding = hn::Set(df, 12582912.0f);  // 1.5 * 2^23: adding it rounds
  const auto within = hn::Min(hn::Max(scaled, hn::Set(df, to.sum_lower)), hn::Set(df, to.sum_upper));
  return hn::Mul(hn::Sub(hn::Add(within, rounding), rounding), hn::Set(df, to.sum_step));
}

// Sums of row number `row`, scaled, with the residual.
template <bool kResidual>
HWY_INLINE ScaledVector Scaled(const SumsToBytes& to, float scale, int64_t row, ByteVector sum,
                               const int32_t* residual) {
  const ByteTag d;
  const FloatTag df;
  ScaledVector scaled = hn::Mul(hn::ConvertTo(df, sum), hn::Set(df, scale));
  if constexpr (kResidual) {
    const auto byte = ByteOfLanes(hn::LoadU(d, residual), 24 - 8 * static_cast<int>(row & (kQuad - 1)));
    const auto other = hn::ConvertTo(df, hn::Sub(byte, hn::Set(d, to.residual_zero_point)));
    scaled = hn::Add(SumOfSteps(to, scaled), hn::Mul(other, hn::Set(df, to.residual_scale)));
  }
  return scaled;
}

// To the nearest integer, ties to even. What is beyond 32 bits becomes something of its sign that is beyond 16.
// (Highway's NearestInt of scalars rounds 0.5 - 2^-25 to 1.)
HWY_INLINE ByteVector RoundedTo32(ScaledVector v) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(ByteTag(), static_cast<int32_t>(std::nearbyintf(std::clamp(hn::GetLane(v), -1e9f, 1e9f))));
#elif HWY_ARCH_ARM_A64
  return ByteVector(vcvtnq_s32_f32(v.raw));
#else
  // x86 makes -2^31 of all that is beyond.
  const ScaledVector within = hn::Min(v, hn::Set(FloatTag(), 1e9f));
#if HWY_TARGET == HWY_AVX3
  return ByteVector{_mm512_cvtps_epi32(within.raw)};
#elif HWY_TARGET == HWY_AVX2
  return ByteVector{_mm256_cvtps_epi32(within.raw)};
#else
  return ByteVector{_mm_cvtps_epi32(within.raw)};
#endif
#endif
}

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void StoreFour(const SumsToBytes& to, const ScaledVector (&v)[4], size_t count, PanelByte* bytes) {
  for (size_t i = 0; i < count; ++i) {
    const int32_t value = hn::GetLane(RoundedTo32(v[i])) + to.zero_point;
    bytes[i] = static_cast<PanelByte>(std::clamp<int32_t>(value, to.lower, to.upper));
  }
}
#else
using BytesTag = hn::Repartition<PanelByte, ByteTag>;
using BytesVector = hn::Vec<BytesTag>;

// Rounds, adds the zero point and narrows, each time to the nearest number that there is. Within each 128 bits: the four
// lanes of each vector in turn.
HWY_INLINE BytesVector NarrowedInBlocks(const SumsToBytes& to, const ScaledVector (&v)[4]) {
  const hn::Repartition<int16_t, ByteTag> d16;
  const BytesTag d8;
  const auto zero_point = hn::Set(d16, to.zero_point);
#if HWY_TARGET == HWY_AVX3
  const __m512i low = _mm512_packs_epi32(RoundedTo32(v[0]).raw, RoundedTo32(v[1]).raw);
  const __m512i high = _mm512_packs_epi32(RoundedTo32(v[2]).raw, RoundedTo32(v[3]).raw);
  const BytesVector bytes{
      _mm512_packus_epi16(_mm512_adds_epi16(low, zero_point.raw), _mm512_adds_epi16(high, zero_point.raw))};
#elif HWY_TARGET == HWY_AVX2
  const __m256i low = _mm256_packs_epi32(RoundedTo32(v[0]).raw, RoundedTo32(v[1]).raw);
  const __m256i high = _mm256_packs_epi32(RoundedTo32(v[2]).raw, RoundedTo32(v[3]).raw);
  const BytesVector bytes{
      _mm256_packus_epi16(_mm256_adds_epi16(low, zero_point.raw), _mm256_adds_epi16(high, zero_point.raw))};
#else
  const auto low = hn::OrderedDemote2To(d16, RoundedTo32(v[0]), RoundedTo32(v[1]));
  const auto high = hn::OrderedDemote2To(d16, RoundedTo32(v[2]), RoundedTo32(v[3]));
  const auto bytes = hn::OrderedDemote2To(d8, hn::SaturatedAdd(low, zero_point), hn::SaturatedAdd(high, zero_point));
#endif
  return hn::Min(hn::Max(bytes, hn::Set(d8, to.lower)), hn::Set(d8, to.upper));
}

// The same in the order of the lanes of all four vectors.
HWY_INLINE BytesVector Narrowed(const SumsToBytes& to, const ScaledVector (&v)[4]) {
  const BytesVector bytes = NarrowedInBlocks(to, v);
#if HWY_TARGET == HWY_AVX3
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return BytesVector{_mm512_permutexvar_epi32(order, bytes.raw)};
#elif HWY_TARGET == HWY_AVX2
  return BytesVector{_mm256_permutevar8x32_epi32(bytes.raw, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
#else
  return bytes;
#endif
}

// Four vectors, of which `count` mean something: there is room for all.
HWY_INLINE void StoreFour(const SumsToBytes& to, const ScaledVector (&v)[4], size_t, PanelByte* bytes) {
  hn::StoreU(Narrowed(to, v), BytesTag(), bytes);
}
#endif

// Writes up to four vectors of lanes, a byte each, however few hold pixels (plane_pitch has room for them).
template <bool kResidual, class Row>
HWY_INLINE void StoreRow(const SumsToBytes& call_to, int64_t row, const Row& sums, const int32_t* residual,
                         PanelByte* bytes) {
  const SumsToBytes to = call_to;  // which stores of bytes could change, for all that the compiler knows
  const float scale = to.scale[row];
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kVectors; i += 4) {
    ScaledVector four[4];
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 4; ++k) {
      const size_t n = i + k < Row::kVectors ? i + k : Row::kVectors - 1;
      ByteVector sum;
      if constexpr (Row::kLaneCount % kLanes != 0) {
        sum = n + 1 == Row::kVectors ? sums.WidenedTail() : sums.full[n < Row::kStored ? n : 0];
      } else {
        sum = sums.full[n];
      }
      const int32_t* const other = kResidual ? residual + n * kLanes : nullptr;
      four[k] = i + k < Row::kVectors ? Scaled<kResidual>(to, scale, row, sum, other) : four[0];
    }
    StoreFour(to, four, HWY_MIN(Row::kVectors - i, size_t{4}), bytes + i * kLanes);
  }
}

// Calls run(lane, pixel, count) for the pixels of a span whose lanes come in rows of call.row_lanes with leftovers at the
// end of each; lanes count from the tile's first.
template <class Call, class Run>
HWY_INLINE void ForEachImageRow(const Call& call, const Run& run) {
  const int64_t begin = call.span_begin;
  const int64_t end = begin + call.span_lanes;
  for (int64_t y = begin / call.row_lanes; y < call.image_rows; ++y) {
    const int64_t first = HWY_MAX(y * call.row_lanes, begin);
    const int64_t last = HWY_MIN(y * call.row_lanes + call.row_pixels, end);
    if (first >= end) break;
    if (first < last) run(first, y * call.row_pixels + first - y * call.row_lanes, last - first);
  }
}

// Adds a residual, which has no leftovers between its rows, to sums that have.
template <class Call>
HWY_NOINLINE void StoreCompact(const Call& call, int64_t row, const int32_t* HWY_RESTRICT sums,
                               const int32_t* HWY_RESTRICT residual, PanelByte* HWY_RESTRICT bytes) {
  const ByteTag d;
  const int64_t lanes = static_cast<int64_t>(kLanes);
  const SumsToBytes to = call.to;
  const float scale = to.scale[row];
  ForEachImageRow(call, [&](int64_t lane, int64_t pixel, int64_t count) HWY_ATTR {
    const int32_t* const from = sums + lane - call.span_begin;
    for (int64_t i = 0; i < count; i += 4 * lanes) {
      ScaledVector four[4];
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t at = i + k * lanes;
        HWY_ALIGN int32_t other[kLanes];
        if (at >= count) {
          four[k] = four[0];
          continue;
        }
        hn::Store(hn::LoadN(d, residual + pixel + at, static_cast<size_t>(HWY_MIN(count - at, lanes))), d, other);
        four[k] = Scaled<true>(to, scale, row, hn::LoadU(d, from + at), other);
      }
      StoreFour(to, four, static_cast<size_t>(HWY_MIN((count - i + lanes - 1) / lanes, int64_t{4})), bytes + lane + i);
    }
  });
}

template <bool kQuads, class Row>
HWY_INLINE void FinishRow(const ByteCall<kQuads>& call, int64_t row, const Row& sums) {
  PanelByte* const bytes = call.planes + row * call.plane_pitch;
  if (call.residual == nullptr) {
    StoreRow<false>(call.to, row, sums, nullptr, bytes + call.span_begin);
    return;
  }
  const int32_t* const residual = call.residual + QuadOf(row) * call.residual_pitch;
  if (!call.compact) {
    StoreRow<true>(call.to, row, sums, residual + call.span_begin, bytes + call.span_begin);
    return;
  }
  // One vector more: the last pixels of a row are loaded as a whole vector.
  HWY_ALIGN int32_t stored[(Row::kVectors + 1) * kLanes];
  sums.Store(stored);
  StoreCompact(call, row, stored, residual, bytes);
}

// Fetches the residual that will be added to a row's sums.
template <class Row, bool kQuads>
HWY_INLINE void PrefetchRow(const ByteCall<kQuads>& call, int64_t row) {
  if (!call.last || call.residual == nullptr) return;
  const int32_t* const from = call.residual + QuadOf(row) * call.residual_pitch + call.span_begin;
  GOSSAMER_UNROLL
  for (size_t lane = 0; lane < Row::kLaneCount; lane += kLineFloats) __builtin_prefetch(from + lane, 0, 3);
}

// += value in the lanes that a shift does not keep, into which it has moved zeros.
template <class Row>
HWY_INLINE void AddBeside(const ColumnMask& keep, int32_t value, Row& sums) {
  const auto added = [&](auto d, auto sum, size_t lane) HWY_ATTR {
    const auto kept = hn::BitCast(d, hn::LoadU(hn::RebindToUnsigned<decltype(d)>(), keep.words.data() + lane));
    return hn::Add(sum, hn::AndNot(kept, hn::Set(d, value)));
  };
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kLaneCount / kLanes; ++i) sums.full[i] = added(typename Row::Tag(), sums.full[i], i * kLanes);
  if constexpr (Row::kLaneCount % kLanes != 0) {
    sums.tail = added(typename Row::TailTag(), sums.tail, Row::kLaneCount / kLanes * kLanes);
  }
}

// Where columns are shifted in registers, zeros take the place of padding, whose value is the input's zero point.
template <bool kQuads, class Row>
HWY_INLINE void AddFirst(const ByteCall<kQuads>& call, int32_t row, Row& sums) {
  sums.AddAll(call.bias[row]);
  if (call.left_padding == nullptr) return;
  AddBeside(*call.keep_after_right, call.left_padding[row], sums);
  AddBeside(*call.keep_after_left, call.right_padding[row], sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
