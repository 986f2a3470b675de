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
// sum + pixels * weight number kEntry of a pair.
template <size_t kEntry>
HWY_INLINE float16x8_t MulAddHalf(float16x8_t pixels, float pair, float16x8_t sum) {
  asm(".arch armv8.2-a+fp16\n\tfmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum) : "w"(pixels), "x"(pair), "i"(kEntry));
  return sum;
}

// The sums of a chain in registers of 8 halves. What the last one has beyond the row is not looked at.
template <size_t kRowLanes>
struct NativeChain {
  static constexpr size_t kVectors = (kRowLanes + 7) / 8;
  float16x8_t part[kVectors];

  HWY_INLINE NativeChain() {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) part[i] = vreinterpretq_f16_u16(vdupq_n_u16(0));
  }

  // The weights of a step, as bits. Reads two even where the step has one.
  HWY_INLINE static float Weights(const uint8_t* entry) {
    float pair;
    std::memcpy(&pair, entry, sizeof(pair));
    return pair;
  }

  // += weight number kEntry * from[0 .. lanes)
  template <size_t kEntry>
  HWY_INLINE void MulAdd(float pair, const Half* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      part[i] = MulAddHalf<kEntry>(vreinterpretq_f16_u16(vld1q_u16(&from[8 * i].bits)), pair, part[i]);
    }
  }

  template <class Row>
  HWY_INLINE void AddTo(FloatVector scale, Row& sums) const {
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
  FloatVector part[kVectors];

  HWY_INLINE RoundedChain() {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) part[i] = hn::Zero(FloatTag());
  }

  HWY_INLINE static const uint8_t* Weights(const uint8_t* entry) { return entry; }

  template <size_t kEntry>
  HWY_INLINE void MulAdd(const uint8_t* weights, const Half* HWY_RESTRICT from) {
    uint16_t bits;
    std::memcpy(&bits, weights + sizeof(bits) * kEntry, sizeof(bits));
    const FloatVector weight = hn::Set(FloatTag(), FloatFromHalf(bits));
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      part[i] = RoundedToHalf(hn::MulAdd(LoadHalves(from + i * kLanes), weight, part[i]));
    }
  }

  template <class Row>
  HWY_INLINE void AddTo(FloatVector scale, Row& sums) const {
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

// One step of the stream: kEntries weights of fp16, then as many offsets.
template <size_t kEntries, class Chain>
HWY_INLINE const uint8_t* MulAddHalves(const uint8_t* HWY_RESTRICT entry, const Half* HWY_RESTRICT input, Chain& chain) {
  static_assert(kEntries <= 2, "a step of a row is one or two nonzeros");
  const auto weights = Chain::Weights(entry);
  uint16_t offset[kEntries];
  std::memcpy(offset, entry + sizeof(Half) * kEntries, sizeof(offset));
  chain.template MulAdd<0>(weights, input + offset[0]);
  if constexpr (kEntries > 1) chain.template MulAdd<1>(weights, input + offset[1]);
  return entry + kEntries * (sizeof(Half) + sizeof(uint16_t));
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
      uint32_t steps = HWY_MIN(left, kChainProducts / 2);
      left -= steps;
      Chain<kRowLanes> chain;
      hwy::Prefetch(entry + 1024);  // as PrefetchStream
      if (odd) {
        entry = MulAddHalves<1>(entry, input, chain);
        odd = false;
        --steps;
      }
      for (; steps != 0; --steps) entry = MulAddHalves<2>(entry, input, chain);
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
