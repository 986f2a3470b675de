// What becomes of rows of integer sums: requantised (requantisation.h), four neighbouring rows at a time, which are the lanes of
// a panel. Kernels leave the sums in memory, because they sum rows in the order of their numbers of nonzeros.
#if defined(GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_ROW_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/quantised_product-inl.h"
#include "kernels/requantisation.h"
#include "kernels/row_kernel.h"
#include "kernels/spmm-inl.h"
#include "kernels/table-inl.h"

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
  // Nothing is beyond 32 bits when it is rounded, there are no bounds but those of a byte, and the zero point's byte is 0.
  bool plain;

  SumsToBytes() = default;
  // `within_32_bits` is that of StaysWithin32Bits.
  SumsToBytes(const Requantisation& output, bool within_32_bits)
      : scale(output.scale.data()),
        zero_point(static_cast<int16_t>(output.zero_point - kPanelOffset)),
        lower(PanelByteOf(output.lower)),
        upper(PanelByteOf(output.upper)),
        residual_scale(output.residual_scale),
        residual_zero_point(output.residual_zero_point - kPanelOffset),
        sum_step(output.sum_step),
        sum_lower(output.sum_lower),
        sum_upper(output.sum_upper),
        plain(within_32_bits && output.lower == 0 && output.upper == 255 && zero_point == 0) {}
};

template <bool kQuads>
struct ByteCall : ProductCall<int32_t> {
  const SumsToBytes* to;
  const int32_t* residual;  // of the first lane of the output, first pixel of the tile; or null
  int32_t* output;          // likewise
  int64_t output_pitch;
  int64_t span_pixels;  // of the span's lanes, where there are no leftovers between rows of pixels
  // Of each row, what padding adds to the columns beside it; null where that is nothing.
  const int32_t* left_padding;
  const int32_t* right_padding;
};

template <bool kQuads>
struct CallOf<ByteCall<kQuads>> {
  using Product = ByteProduct<kQuads>;
  static constexpr KernelTraits kTraits = ProductTraits<kQuads>();
};

// Nothing to fetch: sums are in the first or the second cache.
template <class Row, bool kQuads>
HWY_INLINE void PrefetchRow(const ByteCall<kQuads>&, int64_t) {}

template <bool kQuads, class Row>
HWY_INLINE void EndRow(const ByteCall<kQuads>& call, int64_t row, const Row& sums) {
  sums.Store(call.accumulators + row * call.accumulator_pitch);
}

using ScaledVector = hn::Vec<FloatTag>;

// Byte number `index` of each lane of a panel, widened.
HWY_INLINE ByteVector ByteOfLanes(ByteVector lanes, size_t index) {
  const ByteTag d;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
  static constexpr int8_t kNone = -128;
  static constexpr int8_t kBytes[19] = {0, kNone, kNone, kNone, 4, kNone, kNone, kNone, 8, kNone, kNone, kNone, 12, kNone, kNone, kNone};
  const hn::Repartition<int8_t, ByteTag> d8;
  const auto first = hn::LoadDup128(d8, kBytes);
  const auto chosen = hn::Add(first, hn::BitCast(d8, hn::Set(d, static_cast<int32_t>(index))));
  return hn::BitCast(d, hn::TableLookupBytesOr0(hn::BitCast(d8, lanes), chosen));
#else
  const auto top = hn::ShiftLeftSame(lanes, 24 - 8 * static_cast<int>(index));
  if constexpr (std::is_signed_v<PanelByte>) {
    return hn::ShiftRight<24>(top);
  } else {
    return hn::BitCast(d, hn::ShiftRight<24>(hn::BitCast(hn::RebindToUnsigned<ByteTag>(), top)));
  }
#endif
}

// What is added to sums before they are rounded.
enum class Adds {
  kNothing,
  kBytes,            // a residual whose zero point's byte is 0
  kResidual,         // one of any zero point
  kBytesToSteps,     // the same to sums that have become steps of their own
  kResidualToSteps,
  kAny,              // kResidual or kResidualToSteps
};

// To the nearest integer, ties to even, of numbers below 2^22.
HWY_INLINE ScaledVector Rounded(ScaledVector v) {
#if HWY_TARGET == HWY_SCALAR
  const auto rounding = hn::Set(FloatTag(), 12582912.0f);  // 1.5 * 2^23: adding it rounds
  return hn::Sub(hn::Add(v, rounding), rounding);
#else
  return hn::Round(v);
#endif
}

// The residual, less its zero point, times its scale, and what it is added to.
template <Adds kAdds>
HWY_INLINE ScaledVector WithResidual(const SumsToBytes& to, ScaledVector scaled, ByteVector bytes) {
  const FloatTag df;
  constexpr bool kAny = kAdds == Adds::kAny;
  if (kAdds == Adds::kBytesToSteps || kAdds == Adds::kResidualToSteps || (kAny && to.sum_step != 0.0f)) {
    const auto within = hn::Min(hn::Max(scaled, hn::Set(df, to.sum_lower)), hn::Set(df, to.sum_upper));
    scaled = hn::Mul(Rounded(within), hn::Set(df, to.sum_step));
  }
  if constexpr (kAdds == Adds::kResidual || kAdds == Adds::kResidualToSteps || kAny) {
    bytes = hn::Sub(bytes, hn::Set(ByteTag(), to.residual_zero_point));
  }
  return hn::Add(scaled, hn::Mul(hn::ConvertTo(df, bytes), hn::Set(df, to.residual_scale)));
}

// To the nearest integer, ties to even. What is beyond 32 bits, if it is not `within` them, becomes something of its sign that
// is beyond 16. (Highway's NearestInt of scalars rounds 0.5 - 2^-25 to 1.)
HWY_INLINE ByteVector RoundedTo32(bool within, ScaledVector v) {
#if HWY_TARGET == HWY_SCALAR
  (void)within;
  return hn::Set(ByteTag(), static_cast<int32_t>(std::nearbyintf(std::clamp(hn::GetLane(v), -1e9f, 1e9f))));
#elif HWY_ARCH_ARM_A64
  (void)within;
  return ByteVector(vcvtnq_s32_f32(v.raw));
#else
  // x86 makes -2^31 of all that is beyond.
  if (!within) v = hn::Min(v, hn::Set(FloatTag(), 1e9f));
#if HWY_TARGET == HWY_AVX3
  return ByteVector{_mm512_cvtps_epi32(v.raw)};
#elif HWY_TARGET == HWY_AVX2
  return ByteVector{_mm256_cvtps_epi32(v.raw)};
#else
  return ByteVector{_mm_cvtps_epi32(v.raw)};
#endif
#endif
}

#if HWY_TARGET == HWY_SCALAR
// The bytes of four rows as a lane.
HWY_INLINE ByteVector LanesOfRows(const SumsToBytes& to, bool, const ScaledVector (&v)[4]) {
  PanelByte bytes[kQuad];
  for (size_t r = 0; r < 4; ++r) {
    const int32_t value = hn::GetLane(RoundedTo32(false, v[r])) + to.zero_point;
    bytes[r] = static_cast<PanelByte>(std::clamp<int32_t>(value, to.lower, to.upper));
  }
  int32_t lane;
  std::memcpy(&lane, bytes, sizeof(lane));
  return hn::Set(ByteTag(), lane);
}
#else
using WordsTag = hn::Repartition<int16_t, ByteTag>;
using WordsVector = hn::Vec<WordsTag>;
using BytesTag = hn::Repartition<PanelByte, ByteTag>;
using BytesVector = hn::Vec<BytesTag>;

// Rounds, narrows and adds the zero point, each time to the nearest number that there is. Within each 128 bits: the four lanes
// of either vector. `plain` is to.plain, or false.
HWY_INLINE WordsVector NarrowedTo16(const SumsToBytes& to, bool plain, ScaledVector a, ScaledVector b) {
  const WordsTag d16;
  const ByteVector low = RoundedTo32(plain, a), high = RoundedTo32(plain, b);
#if HWY_TARGET == HWY_AVX3
  const WordsVector words{_mm512_packs_epi32(low.raw, high.raw)};
#elif HWY_TARGET == HWY_AVX2
  const WordsVector words{_mm256_packs_epi32(low.raw, high.raw)};
#else
  const WordsVector words = hn::OrderedDemote2To(d16, low, high);
#endif
  return plain ? words : hn::SaturatedAdd(words, hn::Set(d16, to.zero_point));
}

// Within each 128 bits: the eight numbers of either vector.
HWY_INLINE BytesVector NarrowedTo8(const SumsToBytes& to, bool plain, WordsVector low, WordsVector high) {
  const BytesTag d8;
#if HWY_TARGET == HWY_AVX3
  const BytesVector bytes{_mm512_packus_epi16(low.raw, high.raw)};
#elif HWY_TARGET == HWY_AVX2
  const BytesVector bytes{_mm256_packus_epi16(low.raw, high.raw)};
#else
  const auto bytes = hn::OrderedDemote2To(d8, low, high);
#endif
  if (plain) return bytes;
  return hn::Min(hn::Max(bytes, hn::Set(d8, to.lower)), hn::Set(d8, to.upper));
}

// Within each 128 bits: the four lanes of each vector in turn.
HWY_INLINE BytesVector NarrowedInBlocks(const SumsToBytes& to, bool plain, const ScaledVector (&v)[4]) {
  return NarrowedTo8(to, plain, NarrowedTo16(to, plain, v[0], v[1]), NarrowedTo16(to, plain, v[2], v[3]));
}

// From bytes of four rows, each four lanes of 128 bits, to lanes of their bytes.
HWY_INLINE ByteVector LanesOfBlocks(BytesVector blocks) {
  static constexpr PanelByte kTransposed[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return hn::BitCast(ByteTag(), hn::TableLookupBytes(blocks, hn::LoadDup128(BytesTag(), kTransposed)));
}

// The bytes of four rows as lanes.
HWY_INLINE ByteVector LanesOfRows(const SumsToBytes& to, bool plain, const ScaledVector (&v)[4]) {
  return LanesOfBlocks(NarrowedInBlocks(to, plain, v));
}
#endif

// How a tile's sums lie: rows of `columns` pixels, `row_lanes` from one to the next.
struct SummedTile {
  int64_t rows;
  int64_t columns;
  int64_t row_lanes;
  int64_t pitch;  // from one output channel to the next

  int64_t pixels() const { return rows * columns; }
};

// The sums of four rows and how they are scaled.
struct FourRows {
  const int32_t* sums[kQuad];
  ScaledVector scale[kQuad];

  // `one(r)` is the number of row r.
  template <class One>
  HWY_INLINE FourRows(const SumsToBytes& to, const int32_t* first, int64_t pitch, int64_t first_row, const One& one) {
    for (int64_t r = 0; r < kQuad; ++r) {
      sums[r] = first + (one(r) - first_row) * pitch;
      scale[r] = hn::Set(FloatTag(), to.scale[one(r)]);
    }
  }
};

// `count` pixels that lie side by side, from sum number `first_sum`. Whole vectors are read and written where there is room for
// them, `room` lanes.
template <Adds kAdds, bool kPlain>
HWY_INLINE void RequantisePixels(const SumsToBytes& to, const FourRows& rows, int64_t first_sum, int64_t count,
                                 int64_t room, const int32_t* residual, int32_t* lanes) {
  constexpr bool kResidual = kAdds != Adds::kNothing;
  const ByteTag d;
  const FloatTag df;
  const int32_t* const sums[kQuad] = {rows.sums[0] + first_sum, rows.sums[1] + first_sum, rows.sums[2] + first_sum,
                                      rows.sums[3] + first_sum};
  const int64_t at_once = static_cast<int64_t>(kLanes);
  const auto requantised = [&](int64_t i, ByteVector other) HWY_ATTR {
    ScaledVector v[kQuad];
    GOSSAMER_UNROLL
    for (size_t r = 0; r < kQuad; ++r) {
      v[r] = hn::Mul(hn::ConvertTo(df, hn::LoadU(d, sums[r] + i)), rows.scale[r]);
      if constexpr (kResidual) v[r] = WithResidual<kAdds>(to, v[r], ByteOfLanes(other, r));
    }
    return LanesOfRows(to, kPlain, v);
  };
  int64_t i = 0;
  const int64_t whole = HWY_MIN(count, room - at_once + 1);
  for (; i < whole; i += at_once) {
    hn::StoreU(requantised(i, kResidual ? hn::LoadU(d, residual + i) : hn::Zero(d)), d, lanes + i);
  }
  if (i < count) {
    const size_t rest = static_cast<size_t>(count - i);
    hn::StoreN(requantised(i, kResidual ? hn::LoadN(d, residual + i, rest) : hn::Zero(d)), d, lanes + i, rest);
  }
}

// Calls run(std::integral_constant<Adds, what is added>, std::bool_constant<to.plain>).
template <class Run>
HWY_INLINE void WithForm(const SumsToBytes& to, bool adds, const Run& run) {
  const auto with_adds = [&](auto plain) HWY_ATTR {
    const bool moved = to.residual_zero_point != 0;
    if (!adds) {
      run(std::integral_constant<Adds, Adds::kNothing>(), plain);
    } else if (to.sum_step == 0.0f) {
      moved ? run(std::integral_constant<Adds, Adds::kResidual>(), plain)
            : run(std::integral_constant<Adds, Adds::kBytes>(), plain);
    } else {
      moved ? run(std::integral_constant<Adds, Adds::kResidualToSteps>(), plain)
            : run(std::integral_constant<Adds, Adds::kBytesToSteps>(), plain);
    }
  };
  if (to.plain) {
    with_adds(std::true_type());
  } else {
    with_adds(std::false_type());
  }
}

// The activation function of finished rows.
inline void LookUpRows(const std::vector<PanelByte>& table, Range rows, int64_t pixels, int32_t* output, int64_t pitch) {
  if (table.empty()) return;
  for (int64_t row = rows.first; row < rows.last; row += kQuad) {
    LookUp(table.data(), reinterpret_cast<PanelByte*>(output + QuadOf(row) * pitch), kQuad * pixels);
  }
}

// See RequantiseRows.
template <Adds kAdds, bool kPlain>
HWY_NOINLINE void RequantiseRowsAs(const SumsToBytes& call_to, const std::vector<PanelByte>& table, Range of_rows,
                                   const SummedTile& tile, const int32_t* sums, const int32_t* residual,
                                   int32_t* output, int64_t pitch) {
  constexpr bool kResidual = kAdds != Adds::kNothing;
  const SumsToBytes to = call_to;  // which stores of bytes could change, for all that the compiler knows
  const int64_t pixels = tile.pixels();
  for (int64_t row = of_rows.first; row < of_rows.last; row += kQuad) {
    const FourRows four(to, sums, tile.pitch, of_rows.first,
                        [&](int64_t r) { return HWY_MIN(row + r, of_rows.last - 1); });
    const int64_t place = QuadOf(row) * pitch;
    // What is written over the next lane is written again. A residual may lie where the output does: nothing is written over
    // before it is read.
    const bool next_follows = !kResidual && row + kQuad < of_rows.last && pitch >= static_cast<int64_t>(kLanes);
    for (int64_t y = 0, pixel = place; y < tile.rows; ++y, pixel += tile.columns) {
      const int64_t room = kResidual ? tile.columns : (next_follows ? pixels + pitch : pixels) + place - pixel;
      RequantisePixels<kAdds, kPlain>(to, four, y * tile.row_lanes, tile.columns, room,
                                          kResidual ? residual + pixel : nullptr, output + pixel);
    }
    if (!table.empty()) LookUp(table.data(), reinterpret_cast<PanelByte*>(output + place), kQuad * pixels);
  }
}

// Rows `of_rows` of a tile, from `sums` of the first of them to lanes of the output, of which there is one for four rows;
// `residual`, which may be null, and `output` are of row 0, and `pitch` from one lane to the next. Rows that fill up the last lane
// are as the last row.
inline void RequantiseRows(const SumsToBytes& to, const std::vector<PanelByte>& table, Range of_rows, SummedTile tile,
                           const int32_t* sums, const int32_t* residual, int32_t* output, int64_t pitch) {
  if (tile.row_lanes == tile.columns) tile = {1, tile.pixels(), tile.pixels(), tile.pitch};
  WithForm(to, residual != nullptr, [&](auto adds, auto plain) {
    RequantiseRowsAs<adds, plain>(to, table, of_rows, tile, sums, residual, output, pitch);
  });
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
