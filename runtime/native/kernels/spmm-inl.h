// The sparse product: output rows += weight * input rows, for the nonzeros of each output row.
//
// kRows rows are computed together, each with all its pixels in registers: one broadcast and one 16-bit offset feed
// kFull (+ a tail) multiply-adds that read their input straight from the cache. Every one of them needs a load, which
// leaves none to spare: the stream is read in steps of 4 nonzeros, one load for their weights, one for their offsets,
// and weights are broadcast within registers. With two loads a nonzero a row of 112 pixels takes 8.9 cycles instead of 7.
#if defined(GOSSAMER_KERNELS_SPMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_SPMM_INL_H_
#undef GOSSAMER_KERNELS_SPMM_INL_H_
#else
#define GOSSAMER_KERNELS_SPMM_INL_H_
#endif

#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/fetch.h"
#include "kernels/finish-inl.h"
#include "kernels/machine.h"
#include "kernels/row_kernel.h"
#include "kernels/short_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Registers for sums, and the longest row. AVX-512 could hold more than 16 of 32, but a row of 112 pixels needs 7 and 2
// rows hide the latency; 16 leaves 4 rows of 64 pixels. SSE has no fused multiply-add and loses registers to products.
inline constexpr KernelTraits Traits() {
#if HWY_TARGET == HWY_AVX3
  return {16, 16, 8, 128};
#elif HWY_TARGET == HWY_AVX2
  return {8, 14, 14, 56};
#elif HWY_TARGET == HWY_SSE4
  return {4, 12, 12, 0};
#elif HWY_ARCH_ARM_A64
  return {4, 28, 14, 56};
#elif HWY_TARGET == HWY_SCALAR
  return {1, 12, 12, 12};
#else
  return {4, 12, 12, 24};
#endif
}
static_assert(Traits().vector_lanes == static_cast<int64_t>(kLanes), "the traits are of another vector size");

// What a kind of call multiplies, and what its kernels can hold in registers.
template <class Call>
struct CallOf;
template <>
struct CallOf<RowCall> {
  using Product = FloatProduct;
  static constexpr KernelTraits kTraits = Traits();
};

// How `lanes` pixels are split into registers.
struct RowSplit {
  size_t full;
  size_t tail;
};

inline constexpr RowSplit SplitRow(size_t lanes) {
  const size_t full = lanes / kLanes;
  const size_t rest = lanes % kLanes;
  if (rest == 0) return {full, 0};
  for (size_t tail = 4; tail < kLanes; tail *= 2) {
    if (rest <= tail) return {full, tail};
  }
  return {full + 1, 0};
}

// Fetches the stream ahead, for rows of few pixels. In a whole network the weights of a layer come from the third-level
// cache or from memory, and a row of 7 x 7 pixels eats them at 2 bytes a cycle: 10 to 17% less time for those layers. At
// 14 x 14 and above the processor's own prefetching suffices and the additional load costs 3%.
template <class Row>
HWY_INLINE void PrefetchStream(const uint8_t* entry) {
  if constexpr (Row::kVectors * kLanes <= 64) hwy::Prefetch(entry + 1024);
}

// Groups of rows between the one that is summed and the one whose memory is fetched. A row of few nonzeros takes 20 ns and a
// line from memory, or from a processor that shares no cache with this one, 150.
inline constexpr int64_t kGroupsAhead = 4;

// Fetches the memory that a row's sums will be stored to or, with a residual, be added to. Rows come in the order of their
// numbers of nonzeros, which no processor guesses.
template <class Row>
HWY_INLINE void PrefetchRow(const RowCall& call, int64_t row) {
  if (!call.last) return;
  const int64_t place = row * call.output_pitch + call.span_begin;
  const bool adds = call.residual != nullptr;
  const float* const from = (adds ? call.residual : call.output) + place;
  GOSSAMER_UNROLL
  for (size_t lane = 0; lane < Row::kLaneCount; lane += kLineFloats) {
    if (adds && call.residual != call.output) {
      __builtin_prefetch(from + lane, 0, 3);
    } else {
      FetchToWrite(from + lane);
    }
  }
}

// What a kernel does with a row's sums over a block.
template <class Row>
HWY_INLINE void EndRow(const RowCall& call, int64_t row, Row& sums) {
  if (call.last) {
    FinishRow(call, row, sums);
  } else {
    sums.Store(call.accumulators + row * call.accumulator_pitch);
  }
}

// Two entries of a row.
template <size_t kEntry, size_t kNext, class Vector, class At, class Row>
HWY_INLINE void AddTwo(Vector weights, const At& at, Row& sums) {
  using Product = typename Row::Product;
  sums.template MulAddTwo<kEntry, kNext>(typename Product::template Weight<kEntry>(weights), at(kEntry),
                                         typename Product::template Weight<kNext>(weights), at(kNext));
}

// One step of the stream: kEntries weights, then as many offsets. Entry e is the next nonzero of row e % kRows. Reads 16
// bytes of weights even where the step has fewer; streams end with as much slack.
template <size_t kEntries, size_t kRows, class Row>
HWY_INLINE const uint8_t* MulAddStep(const uint8_t* HWY_RESTRICT entry,
                                     const typename Row::Lane* HWY_RESTRICT input, Row (&sums)[kRows]) {
  static_assert(kEntries % kRows == 0 && kEntries <= 4, "a step holds up to 4 entries");
  using Product = typename Row::Product;
  const typename Product::Tag d;
#if HWY_TARGET == HWY_SCALAR
  GOSSAMER_UNROLL
  for (size_t e = 0; e < kEntries; ++e) {
    typename Row::Lane weight;
    uint16_t offset;
    std::memcpy(&weight, entry + 4 * e, sizeof(weight));
    std::memcpy(&offset, entry + 4 * kEntries + 2 * e, sizeof(offset));
    sums[e % kRows].MulAdd(typename Product::template Weight<0>(hn::Set(d, weight)), input + offset);
  }
#else
  const auto weights = hn::BitCast(d, hn::LoadDup128(hn::Repartition<uint8_t, typename Product::Tag>(), entry));
  uint64_t offsets = 0;
  std::memcpy(&offsets, entry + 4 * kEntries, 2 * kEntries);
  const auto at = [&](size_t e) HWY_ATTR { return input + static_cast<uint16_t>(offsets >> (16 * e)); };
  if constexpr (Product::kJoins && kEntries >= 2 * kRows) {
    AddTwo<0, kRows>(weights, at, sums[0]);
    if constexpr (kRows == 2) AddTwo<1, 3>(weights, at, sums[1]);
    if constexpr (kRows == 1 && kEntries == 4) AddTwo<2, 3>(weights, at, sums[0]);
    return entry + 6 * kEntries;
  }
  sums[0].MulAdd(typename Product::template Weight<0>(weights), at(0));
  if constexpr (kEntries > 1) sums[1 % kRows].MulAdd(typename Product::template Weight<1>(weights), at(1));
  if constexpr (kEntries > 2) sums[2 % kRows].MulAdd(typename Product::template Weight<2>(weights), at(2));
  if constexpr (kEntries > 3) sums[3 % kRows].MulAdd(typename Product::template Weight<3>(weights), at(3));
#endif
  return entry + 6 * kEntries;
}

#if HWY_TARGET != HWY_SCALAR
// Two steps of a group of four rows, each of which has one entry of every row.
template <class Row>
HWY_INLINE const uint8_t* MulAddTwoSteps(const uint8_t* HWY_RESTRICT entry,
                                         const typename Row::Lane* HWY_RESTRICT input, Row (&sums)[4]) {
  using Product = typename Row::Product;
  const typename Product::Tag d;
  const hn::Repartition<uint8_t, typename Product::Tag> bytes;
  constexpr size_t kStepBytes = 24;
  const auto weights = hn::BitCast(d, hn::LoadDup128(bytes, entry));
  const auto next_weights = hn::BitCast(d, hn::LoadDup128(bytes, entry + kStepBytes));
  uint64_t offsets = 0, next_offsets = 0;
  std::memcpy(&offsets, entry + 16, sizeof(offsets));
  std::memcpy(&next_offsets, entry + kStepBytes + 16, sizeof(next_offsets));
  const auto add = [&](auto number) HWY_ATTR {
    constexpr size_t kEntry = decltype(number)::value;
    using Weight = typename Product::template Weight<kEntry>;
    const auto at = [&](uint64_t all) HWY_ATTR { return input + static_cast<uint16_t>(all >> (16 * kEntry)); };
    sums[kEntry].template MulAddTwo<kEntry, kEntry>(Weight(weights), at(offsets), Weight(next_weights),
                                                    at(next_offsets));
  };
  add(std::integral_constant<size_t, 0>());
  add(std::integral_constant<size_t, 1>());
  add(std::integral_constant<size_t, 2>());
  add(std::integral_constant<size_t, 3>());
  return entry + 2 * kStepBytes;
}
#endif

// `steps` steps of a group of rows, of which each has kEntries.
template <size_t kEntries, size_t kRows, class Row>
HWY_INLINE const uint8_t* MulAddSteps(const uint8_t* HWY_RESTRICT entry, uint32_t steps,
                                      const typename Row::Lane* HWY_RESTRICT input, Row (&sums)[kRows]) {
  if constexpr (IsShort<Row, kEntries, kRows>()) {
#if GOSSAMER_HAS_SHORT_ROWS
    if constexpr (kEntries == kRows) {
      entry = MulAddShortSteps<kEntries>(entry, steps, input, sums);
    } else {
      entry = MulAddInParts<kEntries>(entry, steps, input, sums);
    }
#endif
  } else if constexpr (kRows == 4 && Row::Product::kJoins) {
    if (steps % 2 != 0) entry = MulAddStep<kEntries>(entry, input, sums);
    for (steps /= 2; steps != 0; --steps) {
      PrefetchStream<Row>(entry);
      entry = MulAddTwoSteps(entry, input, sums);
    }
  } else {
    for (; steps != 0; --steps) {
      PrefetchStream<Row>(entry);
      entry = MulAddStep<kEntries>(entry, input, sums);
    }
  }
  return entry;
}

template <class Call, size_t kRows, size_t kFull, size_t kTail>
HWY_NOINLINE const uint8_t* SpmmRows(const Call& call) {
  using Row = SumRow<typename CallOf<Call>::Product, kFull, kTail>;
  const uint8_t* HWY_RESTRICT entry = call.entries;
  const typename Row::Lane* HWY_RESTRICT input = call.input;
  for (int64_t group = 0; group < call.groups; ++group) {
    const int32_t* rows = call.rows + group * static_cast<int64_t>(kRows);
    Row sums[kRows];
    if (call.first) {
      GOSSAMER_UNROLL
      for (size_t r = 0; r < kRows; ++r) sums[r].Fill(call.bias[rows[r]]);
    } else {
      GOSSAMER_UNROLL
      for (size_t r = 0; r < kRows; ++r) sums[r].Load(call.accumulators + rows[r] * call.accumulator_pitch);
    }

    if (group + kGroupsAhead < call.groups) {
      GOSSAMER_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        PrefetchRow<Row>(call, rows[static_cast<size_t>(kGroupsAhead) * kRows + r]);
      }
    }
    constexpr uint32_t kStep = static_cast<uint32_t>(StepNonzeros(kRows));
    const uint32_t count = call.counts[group];
    if (kStep == 2 && count % 2 != 0) entry = MulAddStep<kRows>(entry, input, sums);
    entry = MulAddSteps<kRows * kStep>(entry, count / kStep, input, sums);

    GOSSAMER_UNROLL
    for (size_t r = 0; r < kRows; ++r) EndRow(call, rows[r], sums[r]);
  }
  return entry;
}

template <class Call, size_t kRows, size_t kRowLanes>
constexpr RowKernel<Call> SpmmKernelOf() {
  constexpr RowSplit kSplit = SplitRow(kRowLanes);
  if constexpr (kRows * (kSplit.full + (kSplit.tail != 0)) > static_cast<size_t>(CallOf<Call>::kTraits.accumulators)) {
    return nullptr;
  } else {
    return &SpmmRows<Call, kRows, kSplit.full, kSplit.tail>;
  }
}

template <class Call, size_t kRows, size_t... kQuarter>
constexpr std::array<RowKernel<Call>, sizeof...(kQuarter)> SpmmTable(std::index_sequence<kQuarter...>) {
  return {SpmmKernelOf<Call, kRows, 4 * (kQuarter + 1)>()...};
}

// The kernel for `rows` rows of `lanes` (a multiple of 4) pixels. Those for which the registers do not suffice do not
// exist; KernelTraits::RowsPerGroup never asks for them.
template <class Call>
HWY_INLINE RowKernel<Call> SpmmKernel(int64_t rows, int64_t lanes) {
  using Quarters = std::make_index_sequence<static_cast<size_t>(CallOf<Call>::kTraits.row_lanes()) / 4>;
  static constexpr auto kSingle = SpmmTable<Call, 1>(Quarters());
  static constexpr auto kPairs = SpmmTable<Call, 2>(Quarters());
  static constexpr auto kFours = SpmmTable<Call, 4>(Quarters());
  const size_t index = static_cast<size_t>(lanes / 4 - 1);
  return rows == 4 ? kFours[index] : rows == 2 ? kPairs[index] : kSingle[index];
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_SPMM_INL_H_
