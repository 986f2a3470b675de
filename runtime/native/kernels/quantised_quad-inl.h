// Four neighbouring rows at a time, which are requantised in registers: they are a lane of the output.
#if defined(GOSSAMER_KERNELS_QUANTISED_QUAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_QUAD_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_QUAD_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_QUAD_INL_H_
#endif

#include <array>
#include <utility>

#include "hwy/highway.h"
#include "kernels/fetch.h"
#include "kernels/quantised_convolution_plan.h"
#include "kernels/quantised_row-inl.h"
#include "kernels/slice-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3
// Of rows of so few registers that a multiply-add would wait for the one before it (4 cycles), two sets of sums.
template <class Row>
inline constexpr bool kTwoSets = Row::kVectors <= 3;

// A step of two places where both rows have a nonzero: twice a weight of either, then two offsets. Every pixel is loaded once for
// both.
template <class Row>
HWY_INLINE const uint8_t* AddShared(const uint8_t* HWY_RESTRICT entry, const int32_t* HWY_RESTRICT input,
                                    Row (&sums)[2], Row (&next)[2]) {
  const ByteTag d;
  // Each by a load, of which there are fewer here than multiply-adds.
  const auto weight = [&](size_t number) HWY_ATTR {
    int32_t bytes;
    std::memcpy(&bytes, entry + 4 * number, sizeof(bytes));
    return hn::Set(d, bytes);
  };
  uint32_t offsets = 0;
  std::memcpy(&offsets, entry + 16, sizeof(offsets));
  const auto add = [&](const int32_t* from, ByteVector first, ByteVector second, Row (&rows)[2]) HWY_ATTR {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < Row::kVectors; ++i) {
      const ByteVector pixels = hn::LoadU(d, from + i * kLanes);
      rows[0].full[i] = AddQuads<0>(d, pixels, first, rows[0].full[i]);
      rows[1].full[i] = AddQuads<0>(d, pixels, second, rows[1].full[i]);
    }
  };
  add(input + static_cast<uint16_t>(offsets), weight(0), weight(1), sums);
  add(input + (offsets >> 16), weight(2), weight(3), next);
  return entry + 20;
}

// Two rows: steps of places that they share, and steps of two nonzeros of each.
template <class Row>
HWY_INLINE const uint8_t* AddPair(const uint8_t* HWY_RESTRICT entry, const uint32_t* HWY_RESTRICT counts,
                                  const int32_t* HWY_RESTRICT input, Row (&pair)[2]) {
  Row others[2];
  if constexpr (kTwoSets<Row>) {
    for (Row& other : others) other.Fill(0);
  }
  for (uint32_t i = counts[0]; i != 0; --i) {
    PrefetchStream<Row>(entry);
    if constexpr (kTwoSets<Row>) {
      entry = AddShared(entry, input, pair, others);
    } else {
      entry = AddShared(entry, input, pair, pair);
    }
  }
  for (uint32_t i = counts[1]; i != 0; --i) {
    PrefetchStream<Row>(entry);
    entry = MulAddStep<4>(entry, input, pair);
  }
  if constexpr (kTwoSets<Row>) {
    for (size_t r = 0; r < 2; ++r) pair[r].Add(others[r]);
  }
  return entry;
}

// Where the lanes of a quad's residual are, and where those of its results go.
struct QuadPlaces {
  const int32_t* residual;
  int32_t* output;
  size_t rest;  // lanes of the last vector
};

// The sums of two rows, `first` and the next one of a quad, requantised to 16 bits.
template <Adds kAdds, bool kPlain, class Row>
HWY_INLINE void FinishPairAs(const SumsToBytes& to, const QuadPlaces& places, int64_t row, size_t first, const Row (&sums)[2],
                             WordsVector (&words)[Row::kVectors]) {
  const ByteTag d;
  const FloatTag df;
  const float* const scale = to.scale + row + first;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kVectors; ++i) {
    ScaledVector a = hn::Mul(hn::ConvertTo(df, sums[0].full[i]), hn::Set(df, scale[0]));
    ScaledVector b = hn::Mul(hn::ConvertTo(df, sums[1].full[i]), hn::Set(df, scale[1]));
    if constexpr (kAdds != Adds::kNothing) {
      const int32_t* const from = places.residual + i * kLanes;
      const ByteVector bytes = i + 1 == Row::kVectors ? hn::LoadN(d, from, places.rest) : hn::LoadU(d, from);
      a = WithResidual<kAdds>(to, a, ByteOfLanes(bytes, first));
      b = WithResidual<kAdds>(to, b, ByteOfLanes(bytes, first + 1));
    }
    words[i] = NarrowedTo16(to, kPlain, a, b);
  }
}

template <class Call, class Row>
HWY_INLINE void FinishPair(const Call& call, const SumsToBytes& to, const QuadPlaces& places, int64_t row, size_t first,
                           const Row (&sums)[2], WordsVector (&words)[Row::kVectors]) {
  // The commonest forms are written out here, where the sums are in registers.
  if (call.residual == nullptr) {
    return to.plain ? FinishPairAs<Adds::kNothing, true>(to, places, row, first, sums, words)
                    : FinishPairAs<Adds::kNothing, false>(to, places, row, first, sums, words);
  }
  if (to.plain && to.sum_step == 0.0f) {
    return to.residual_zero_point == 0 ? FinishPairAs<Adds::kBytes, true>(to, places, row, first, sums, words)
                                       : FinishPairAs<Adds::kResidual, true>(to, places, row, first, sums, words);
  }
  // The others take a copy: sums whose address is known are memory for the compiler, 40% of the time of a first layer.
  const Row copy[2] = {sums[0], sums[1]};
  WordsVector others[Row::kVectors];
  WithForm(to, true, [&](auto adds, auto plain) HWY_ATTR {
    FinishPairAs<adds, plain>(to, places, row, first, copy, others);
  });
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kVectors; ++i) words[i] = others[i];
}

template <bool kPlain, size_t kVectors>
HWY_INLINE void StoreQuad(const SumsToBytes& to, const QuadPlaces& places, const WordsVector (&upper)[kVectors],
                          const WordsVector (&lower)[kVectors]) {
  const ByteTag d;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    const ByteVector lanes = LanesOfBlocks(NarrowedTo8(to, kPlain, upper[i], lower[i]));
    if (i + 1 == kVectors) {
      hn::StoreN(lanes, d, places.output + i * kLanes, places.rest);
    } else {
      hn::StoreU(lanes, d, places.output + i * kLanes);
    }
  }
}

// Sums of two rows over a block begin.
template <class Call, class Row>
HWY_INLINE void BeginPair(const Call& call, int64_t row, const int32_t* sums, Row (&pair)[2]) {
  if (call.first) {
    pair[0].Fill(call.bias[row]);
    pair[1].Fill(call.bias[row + 1]);
  } else {
    pair[0].Load(sums);
    pair[1].Load(sums + call.accumulator_pitch);
  }
}

template <class Call, size_t kVectors>
HWY_NOINLINE const uint8_t* QuadRows(const Call& call) {
  using Row = SumRow<typename CallOf<Call>::Product, kVectors, 0>;
  const uint8_t* HWY_RESTRICT entry = call.entries;
  const uint32_t* HWY_RESTRICT counts = call.counts;
  const int32_t* HWY_RESTRICT input = call.input;
  const SumsToBytes to = call.last ? *call.to : SumsToBytes();  // which stores of bytes could change, for all that the compiler knows
  // Rows of pixels with leftovers between them go through memory.
  HWY_ALIGN int32_t other[kVectors * kLanes];
  HWY_ALIGN int32_t result[kVectors * kLanes];
  QuadPlaces places = {other, result, kLanes};
  for (int64_t group = 0; group < call.groups; ++group, counts += 4) {
    const int64_t row = call.rows[group];
    int32_t* const sums = call.accumulators + row * call.accumulator_pitch;
    int32_t* const next_sums = sums + 2 * call.accumulator_pitch;
    Row pair[2];
    BeginPair(call, row, sums, pair);
    entry = AddPair(entry, counts, input, pair);
    if (!call.last) {
      pair[0].Store(sums);
      pair[1].Store(sums + call.accumulator_pitch);
      BeginPair(call, row + 2, next_sums, pair);
      entry = AddPair(entry, counts + 2, input, pair);
      pair[0].Store(next_sums);
      pair[1].Store(next_sums + call.accumulator_pitch);
      continue;
    }
    const int64_t place = QuadOf(row) * call.output_pitch;
    if (!call.compact) {
      places.residual = call.residual + place + call.span_begin;
      places.output = call.output + place + call.span_begin;
      places.rest = static_cast<size_t>(call.span_pixels) - (kVectors - 1) * kLanes;
    } else if (call.residual != nullptr) {
      ForEachImageRow(call, [&](int64_t lane, int64_t pixel, int64_t count) HWY_ATTR {
        std::memcpy(other + lane - call.span_begin, call.residual + place + pixel, static_cast<size_t>(count) * sizeof(int32_t));
      });
    }
    WordsVector upper[kVectors], lower[kVectors];
    FinishPair(call, to, places, row, 0, pair, upper);
    BeginPair(call, row + 2, next_sums, pair);
    entry = AddPair(entry, counts + 2, input, pair);
    FinishPair(call, to, places, row, 2, pair, lower);
    if (to.plain) {
      StoreQuad<true>(to, places, upper, lower);
    } else {
      StoreQuad<false>(to, places, upper, lower);
    }
    if (call.compact) {
      ForEachImageRow(call, [&](int64_t lane, int64_t pixel, int64_t count) HWY_ATTR {
        std::memcpy(call.output + place + pixel, result + lane - call.span_begin, static_cast<size_t>(count) * sizeof(int32_t));
      });
    }
  }
  return entry;
}

template <class Call, size_t... kVectors>
constexpr std::array<RowKernel<Call>, sizeof...(kVectors)> QuadTable(std::index_sequence<kVectors...>) {
  return {&QuadRows<Call, kVectors + 1>...};
}

#endif

// The quads of one slice of one block over one span.
template <bool kQuads>
void RunQuads(const LaneSpan& span, const RowSlice& slice, const BlockStream& stream, const int32_t* input,
              const ByteCall<kQuads>& tile_call) {
  using Call = ByteCall<kQuads>;
#if HWY_TARGET == HWY_AVX3
  if constexpr (CallOf<Call>::kTraits.sums_quads) {
    constexpr size_t kMost = static_cast<size_t>(CallOf<Call>::kTraits.row_vectors);
    static constexpr auto kTable = QuadTable<Call>(std::make_index_sequence<kMost>());
    Call call = SpanCall(span, slice, stream, input, tile_call);
    call.groups = stream.groups;
    call.span_pixels = HWY_MIN(span.lanes, call.image_rows * call.row_pixels - span.begin);
    kTable[static_cast<size_t>((span.lanes + static_cast<int32_t>(kLanes) - 1) / static_cast<int32_t>(kLanes) - 1)](call);
  }
#else
  static_assert(!CallOf<Call>::kTraits.sums_quads, "there is no such kernel");
  (void)span, (void)slice, (void)stream, (void)input, (void)tile_call;
#endif
}

// What kernels leave to do for rows that are summed.
template <bool kQuads>
void FinishRows(const QuantisedConvolutionPlan& plan, const SumsToBytes& to, const Range& rows, const SummedTile& tile,
                const int32_t* sums, const ByteCall<kQuads>& call) {
  if (plan.sums_quads) {
    LookUpRows(plan.table, rows, tile.pixels(), call.output, call.output_pitch);
  } else {
    RequantiseRows(to, plan.table, rows, tile, sums, call.residual, call.output, call.output_pitch);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_QUANTISED_QUAD_INL_H_
