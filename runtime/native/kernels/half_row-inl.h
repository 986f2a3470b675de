// Rows of products in fp16: half the bytes and, where the processor has the instructions, twice the lanes of fp32.
//
// Weights and pixels are rounded to fp16. Products are added in fp16 for kChainProducts nonzeros at most, a chain, whose sum is
// multiplied by the row's power of two (HalvesFromWeight) and added to a sum in fp32. With u = 2^-11, of a chain of m products
//   |error| <= (m + 2) u sum |weight * pixel|         in first order; two of the roundings are those of weight and pixel
// whatever the length of the row is. On normal weights and ReLU's outputs the error is in the mean 6.6e-4 of the result's standard
// deviation, of which rounding weights and pixels alone is 2.8e-4; with chains of 16 it is 5.3e-4, and of 256, without an end,
// 1.6e-3. The end of a chain takes as many cycles as 5 nonzeros (llvm-mca, neoverse-n1: docs/kernels.md).
//
// Pixels beyond 65504 are infinite, and so is the sum of a chain beyond it.
#if defined(GOSSAMER_KERNELS_HALF_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_HALF_ROW_INL_H_
#undef GOSSAMER_KERNELS_HALF_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_HALF_ROW_INL_H_
#endif

#include <array>
#include <cstring>
#include <utility>

#include "format/half.h"
#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/slice-inl.h"
#include "kernels/spmm-inl.h"

// Whether this target can have fp16's instructions; whether the processor does is HasHalfProducts().
#undef GOSSAMER_HAS_HALVES
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
#define GOSSAMER_HAS_HALVES 1
#else
#define GOSSAMER_HAS_HALVES 0
#endif

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// An odd nonzero of a row counts as two.
inline constexpr uint32_t kChainProducts = 32;

// Sets of sums of a chain, which products are added to in turn. A multiply-add waits 4 cycles for the one before it on
// a Cortex-A76, which begins two in each cycle: that takes 8 sums, of 8 pixels each.
constexpr size_t ChainSets(size_t row_lanes) { return row_lanes <= 16 ? 4 : row_lanes <= 32 ? 2 : 1; }

// `Chain` is NativeChain or RoundedChain.
template <template <size_t> class Chain>
struct HalfCall : RowCall {
  const Half* input;   // instead of the floats
  const float* scale;  // of each row
};

// One row at a time: its sums are 7 registers of fp16 and 14 of fp32 for 56 pixels. Columns are not shifted in registers.
inline constexpr KernelTraits HalfTraits() {
  KernelTraits traits = Traits();
  traits.accumulators = 1;
  traits.row_vectors = 64 / static_cast<int64_t>(kLanes);
  traits.shift_lanes = 0;
  return traits;
}

template <template <size_t> class Chain>
struct CallOf<HalfCall<Chain>> {
  using Product = FloatProduct;
  static constexpr KernelTraits kTraits = HalfTraits();
};

#if GOSSAMER_HAS_HALVES
// sum + pixels * half number kHalf of `weights`.
template <size_t kHalf>
HWY_INLINE float16x8_t MulAddHalf(float16x8_t pixels, float16x8_t weights, float16x8_t sum) {
  asm(".arch armv8.2-a+fp16\n\tfmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum) : "w"(pixels), "x"(weights), "i"(kHalf));
  return sum;
}

HWY_INLINE float16x8_t AddHalves(float16x8_t a, float16x8_t b) {
  asm(".arch armv8.2-a+fp16\n\tfadd %0.8h, %0.8h, %1.8h" : "+w"(a) : "w"(b));
  return a;
}

// The sums of a chain in registers of 8 halves. What the last one has beyond the row is not looked at.
template <size_t kRowLanes>
struct NativeChain {
  static constexpr size_t kVectors = (kRowLanes + 7) / 8;
  static constexpr size_t kSums = ChainSets(kRowLanes) * kVectors;
  float16x8_t part[kSums];

  HWY_INLINE NativeChain() {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kSums; ++i) part[i] = vreinterpretq_f16_u16(vdupq_n_u16(0));
  }

  // Two steps, as bits: weights, offsets, weights, offsets. Reads 16 bytes even where there are fewer.
  HWY_INLINE static float16x8_t Weights(const uint8_t* entry) { return vreinterpretq_f16_u8(vld1q_u8(entry)); }

  // Set number kSet += half number kHalf of the weights * from[0 .. lanes)
  template <size_t kHalf, size_t kSet>
  HWY_INLINE void MulAdd(float16x8_t weights, const Half* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      float16x8_t& sum = part[kSet * kVectors + i];
      sum = MulAddHalf<kHalf>(vreinterpretq_f16_u16(vld1q_u16(&from[8 * i].bits)), weights, sum);
    }
  }

  // Adds the second half of the sets to the first until there is one.
  template <size_t kLeft = kSums / 2>
  HWY_INLINE void AddSets() {
    if constexpr (kLeft >= kVectors) {
      GOSSAMER_UNROLL
      for (size_t i = 0; i < kLeft; ++i) part[i] = AddHalves(part[i], part[kLeft + i]);
      AddSets<kLeft / 2>();
    }
  }

  template <class Row>
  HWY_INLINE void AddTo(FloatVector scale, Row& sums) {
    AddSets();
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      const FloatVector low(vcvt_f32_f16(vget_low_f16(part[i]))), high(vcvt_high_f32_f16(part[i]));
      sums.full[2 * i] = hn::MulAdd(low, scale, sums.full[2 * i]);
      if (4 * (2 * i + 1) < kRowLanes) sums.full[2 * i + 1] = hn::MulAdd(high, scale, sums.full[2 * i + 1]);
    }
  }
};
#endif

HWY_INLINE FloatVector LoadHalves(const Half* HWY_RESTRICT from) {
  const FloatTag d;
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
  HWY_ALIGN float floats[kLanes];
  for (size_t i = 0; i < kLanes; ++i) floats[i] = FloatFromHalf(from[i].bits);
  return hn::Load(d, floats);
#else
  const hn::Rebind<hwy::float16_t, FloatTag> halves;
  return hn::PromoteTo(d, hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(from)));
#endif
}

HWY_INLINE FloatVector RoundedToHalf(FloatVector v) {
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
  Half rounded[kLanes];
  StoreStaged(v, FloatTag(), rounded);
  return LoadHalves(rounded);
#else
  return hn::PromoteTo(FloatTag(), hn::DemoteTo(hn::Rebind<hwy::float16_t, FloatTag>(), v));
#endif
}

// The same in vectors of floats, each sum rounded to fp16: what the processors compute that have the instructions, but for a
// last digit where an exact sum lies next to the middle of two.
template <size_t kRowLanes>
struct RoundedChain {
  static constexpr size_t kVectors = (kRowLanes + kLanes - 1) / kLanes;
  static constexpr size_t kSums = ChainSets(kRowLanes) * kVectors;
  FloatVector part[kSums];

  HWY_INLINE RoundedChain() {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kSums; ++i) part[i] = hn::Zero(FloatTag());
  }

  HWY_INLINE static const uint8_t* Weights(const uint8_t* entry) { return entry; }

  template <size_t kHalf, size_t kSet>
  HWY_INLINE void MulAdd(const uint8_t* weights, const Half* HWY_RESTRICT from) {
    uint16_t bits;
    std::memcpy(&bits, weights + sizeof(bits) * kHalf, sizeof(bits));
    const FloatVector weight = hn::Set(FloatTag(), FloatFromHalf(bits));
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      FloatVector& sum = part[kSet * kVectors + i];
      sum = RoundedToHalf(hn::MulAdd(LoadHalves(from + i * kLanes), weight, sum));
    }
  }

  // Adds the second half of the sets to the first until there is one.
  template <size_t kLeft = kSums / 2>
  HWY_INLINE void AddSets() {
    if constexpr (kLeft >= kVectors) {
      GOSSAMER_UNROLL
      for (size_t i = 0; i < kLeft; ++i) part[i] = RoundedToHalf(hn::Add(part[i], part[kLeft + i]));
      AddSets<kLeft / 2>();
    }
  }

  template <class Row>
  HWY_INLINE void AddTo(FloatVector scale, Row& sums) {
    AddSets();
    constexpr size_t kFull = kRowLanes / kLanes;
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) sums.full[i] = hn::MulAdd(part[i], scale, sums.full[i]);
    if constexpr (kFull < kVectors) {
      const typename Row::TailTag tail;
      if constexpr (Row::kLaneCount % kLanes == 0) {
        sums.full[kFull] = hn::MulAdd(part[kFull], scale, sums.full[kFull]);
      } else {
        sums.tail = hn::MulAdd(hn::ResizeBitCast(tail, part[kFull]), hn::ResizeBitCast(tail, scale), sums.tail);
      }
    }
  }
};

// input + the low 16 bits of `offset`.
HWY_INLINE const Half* PlaceOf(const Half* input, uint32_t offset) {
#if GOSSAMER_HAS_HALVES
  // GCC takes two or three instructions: it adds the offset once more in the address of the first load.
  const Half* place;
  asm("add %0, %1, %w2, uxth #1" : "=r"(place) : "r"(input), "r"(offset));
  return place;
#else
  return input + static_cast<uint16_t>(offset);
#endif
}

// Two offsets of 16 bits.
HWY_INLINE uint32_t OffsetsAt(const uint8_t* from) {
  uint32_t offsets;
  std::memcpy(&offsets, from, sizeof(offsets));
  return offsets;
}

// One step of the stream, kEntries weights of fp16, then as many offsets, or two steps of two entries.
template <size_t kEntries, size_t kSets, class Chain>
HWY_INLINE const uint8_t* MulAddHalves(const uint8_t* HWY_RESTRICT entry, const Half* HWY_RESTRICT input, Chain& chain) {
  static_assert(kEntries == 1 || kEntries == 2 || kEntries == 4, "a step of a row is one or two nonzeros");
  const auto weights = Chain::Weights(entry);
  if constexpr (kEntries == 1) {
    uint16_t offset;
    std::memcpy(&offset, entry + sizeof(Half), sizeof(offset));
    chain.template MulAdd<0, 0>(weights, input + offset);
  } else {
    // All places first: the last loads of pixels would wait for their offsets.
    const uint32_t offsets = OffsetsAt(entry + 4), more = kEntries == 4 ? OffsetsAt(entry + 12) : 0;
    const Half* const first = PlaceOf(input, offsets);
    const Half* const second = PlaceOf(input, offsets >> 16);
    const Half* const third = PlaceOf(input, more);
    const Half* const fourth = PlaceOf(input, more >> 16);
    chain.template MulAdd<0, 0>(weights, first);
    chain.template MulAdd<1, 1 % kSets>(weights, second);
    if constexpr (kEntries == 4) {
      chain.template MulAdd<4, 2 % kSets>(weights, third);
      chain.template MulAdd<5, 3 % kSets>(weights, fourth);
    }
  }
  return entry + kEntries * (sizeof(Half) + sizeof(uint16_t));
}

// A chain of `steps` steps, the first of which has one entry if it is `odd`.
template <size_t kSets, class Chain>
HWY_INLINE const uint8_t* MulAddChain(const uint8_t* HWY_RESTRICT entry, uint32_t steps, bool odd,
                                      const Half* HWY_RESTRICT input, Chain& chain) {
  hwy::Prefetch(entry + 1024);  // as PrefetchStream
  if (odd) {
    entry = MulAddHalves<1, kSets>(entry, input, chain);
    --steps;
  }
  if (steps % 2 != 0) entry = MulAddHalves<2, kSets>(entry, input, chain);
  GOSSAMER_KEEP_LOOP
  for (steps /= 2; steps != 0; --steps) entry = MulAddHalves<4, kSets>(entry, input, chain);
  return entry;
}

template <template <size_t> class Chain, size_t kRowLanes>
HWY_NOINLINE const uint8_t* HalfRows(const HalfCall<Chain>& call) {
  constexpr RowSplit kSplit = SplitRow(kRowLanes);
  using Row = AccumulatorRow<kSplit.full, kSplit.tail>;
  const uint8_t* HWY_RESTRICT entry = call.entries;
  const Half* HWY_RESTRICT input = call.input;
  for (int64_t group = 0; group < call.groups; ++group) {
    const int32_t row = call.rows[group];
    Row sums;
    if (call.first) {
      sums.Fill(call.bias[row]);
    } else {
      sums.Load(call.accumulators + row * call.accumulator_pitch);
    }
    if (group + kGroupsAhead < call.groups) PrefetchRow<Row>(call, call.rows[group + kGroupsAhead]);
    const FloatVector scale = hn::Set(FloatTag(), call.scale[row]);
    const uint32_t count = call.counts[group];
    bool odd = count % 2 != 0;
    for (uint32_t left = (count + 1) / 2; left != 0;) {
      const uint32_t steps = HWY_MIN(left, kChainProducts / 2);
      left -= steps;
      Chain<kRowLanes> chain;
      entry = MulAddChain<ChainSets(kRowLanes)>(entry, steps, odd, input, chain);
      odd = false;
      chain.AddTo(scale, sums);
    }
    EndRow(call, row, sums);
  }
  return entry;
}

template <template <size_t> class Chain, size_t... kQuarter>
constexpr std::array<RowKernel<HalfCall<Chain>>, sizeof...(kQuarter)> HalfTable(std::index_sequence<kQuarter...>) {
  return {&HalfRows<Chain, 4 * (kQuarter + 1)>...};
}

// One slice of one block over one span.
template <template <size_t> class Chain>
HWY_INLINE void RunGroups(const ProductPlan&, const LaneSpan& span, const RowSlice& slice, const BlockStream& stream,
                          const Half* input, const HalfCall<Chain>& tile_call) {
  static constexpr auto kTable = HalfTable<Chain>(std::make_index_sequence<static_cast<size_t>(HalfTraits().row_lanes()) / 4>());
  HalfCall<Chain> call = SpanCall(span, slice, stream, input, tile_call);
  call.groups = stream.groups;
  kTable[static_cast<size_t>(span.lanes / 4 - 1)](call);
}

// Calls run(RowCall or HalfCall that begins as none) for a plan's arithmetic.
template <class Run>
HWY_INLINE void WithArithmetic(const ConvolutionPlan& plan, const Run& run) {
  if (plan.arithmetic == Arithmetic::kFloat) return run(RowCall());
  const auto halves = [&](auto call) HWY_ATTR {
    call.scale = plan.scale.data();
    run(call);
  };
#if GOSSAMER_HAS_HALVES
  if (plan.arithmetic == Arithmetic::kHalf) return halves(HalfCall<NativeChain>());
#endif
  halves(HalfCall<RoundedChain>());
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_HALF_ROW_INL_H_
