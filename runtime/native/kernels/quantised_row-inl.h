// What becomes of a row of integer sums: requantised (requantisation.h), one byte a pixel, into a plane of its own. Four
// planes are interleaved into lanes of the panel once all rows of a tile are done (interleave-inl.h), because rows are
// summed in the order of their numbers of nonzeros.
#if defined(GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#endif

#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/clamp-inl.h"
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

// What is the same for all rows.
struct SumsToBytes {
  const float* scale;  // of each row
  float lower;         // of the rounded value, less the zero point
  float upper;
  int32_t zero_point;  // of the panel's bytes
  float residual_scale;
  int32_t residual_zero_point;  // likewise

  SumsToBytes() = default;
  explicit SumsToBytes(const Requantisation& output)
      : scale(output.scale.data()),
        lower(static_cast<float>(output.lower - output.zero_point)),
        upper(static_cast<float>(output.upper - output.zero_point)),
        zero_point(output.zero_point - kPanelOffset),
        residual_scale(output.residual_scale),
        residual_zero_point(output.residual_zero_point - kPanelOffset) {}
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

// Adding it to a number of less than 2^22 leaves the number, rounded to the nearest integer, ties to even, in the lowest
// bits: on every processor the same, in one addition. (Highway's NearestInt of scalars rounds 0.5 - 2^-25 to 1.)
inline constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23

// The row's byte of lanes of a panel, widened.
template <class D>
HWY_INLINE hn::Vec<D> ByteOfLanes(D d, hn::Vec<D> lanes, int shift_to_top) {
  const auto top = hn::ShiftLeftSame(lanes, shift_to_top);
  if constexpr (std::is_signed_v<PanelByte>) {
    return hn::ShiftRight<24>(top);
  } else {
    return hn::BitCast(d, hn::ShiftRight<24>(hn::BitCast(hn::RebindToUnsigned<D>(), top)));
  }
}

// Lanes whose lowest byte is that of the panel, for sums of row number `row`.
template <bool kResidual, class D>
HWY_INLINE hn::Vec<D> Requantised(D d, const SumsToBytes& to, int64_t row, hn::Vec<D> sum, const int32_t* residual) {
  const hn::RebindToFloat<D> df;
  auto scaled = hn::Mul(hn::ConvertTo(df, sum), hn::Set(df, to.scale[row]));
  if constexpr (kResidual) {
    const auto byte = ByteOfLanes(d, hn::LoadU(d, residual), 24 - 8 * static_cast<int>(row & (kQuad - 1)));
    const auto other = hn::ConvertTo(df, hn::Sub(byte, hn::Set(d, to.residual_zero_point)));
    scaled = hn::Add(scaled, hn::Mul(other, hn::Set(df, to.residual_scale)));
  }
  scaled = hn::Min(hn::Max(scaled, hn::Set(df, to.lower)), hn::Set(df, to.upper));
  return hn::Add(hn::BitCast(d, hn::Add(scaled, hn::Set(df, kRounding))), hn::Set(d, to.zero_point));
}

// The lowest byte of each lane.
template <class D>
HWY_INLINE void StoreBytes(D d, hn::Vec<D> lanes, PanelByte* to) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint8_t, D> bytes;
  uint8_t* const unsigned_to = reinterpret_cast<uint8_t*>(to);
#if HWY_TARGET == HWY_AVX3
  if constexpr (hn::MaxLanes(D()) == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(unsigned_to), _mm512_cvtepi32_epi8(lanes.raw));
    return;
  }
#endif
  (void)d;
  hn::StoreU(hn::TruncateTo(bytes, hn::BitCast(du, lanes)), bytes, unsigned_to);
}

template <bool kResidual, class Row>
HWY_INLINE void StoreRow(const SumsToBytes& to, int64_t row, const Row& sums, const int32_t* residual,
                         PanelByte* bytes) {
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kLaneCount / kLanes; ++i) {
    const typename Row::Tag d;
    StoreBytes(d, Requantised<kResidual>(d, to, row, sums.full[i], residual + i * kLanes), bytes + i * kLanes);
  }
  if constexpr (Row::kLaneCount % kLanes != 0) {
    constexpr size_t kDone = Row::kLaneCount / kLanes * kLanes;
    const typename Row::TailTag d;
    StoreBytes(d, Requantised<kResidual>(d, to, row, sums.tail, residual + kDone), bytes + kDone);
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
HWY_NOINLINE void StoreCompact(const Call& call, int64_t number, const int32_t* HWY_RESTRICT sums,
                               const int32_t* HWY_RESTRICT residual, PanelByte* HWY_RESTRICT bytes) {
  const ByteTag d;
  ForEachImageRow(call, [&](int64_t lane, int64_t pixel, int64_t count) HWY_ATTR {
    const int32_t* const from = sums + lane - call.span_begin;
    for (int64_t i = 0; i < count; i += static_cast<int64_t>(kLanes)) {
      HWY_ALIGN int32_t other[kLanes];
      hn::Store(hn::LoadN(d, residual + pixel + i, static_cast<size_t>(count - i)), d, other);
      StoreBytes(d, Requantised<true>(d, call.to, number, hn::LoadU(d, from + i), other), bytes + lane + i);
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
