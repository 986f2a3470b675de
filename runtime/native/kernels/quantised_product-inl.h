// Bytes times bytes into sums of 32 bits: four input channels of a pixel times the four weights of a quad.
//
// The sums are the same integers whatever the processor does in between:
//   quads     one instruction multiplies four pairs of bytes and adds them to 32 bits: AVX-512 VNNI, AVX-VNNI, and on ARM
//             the dot products of ARMv8.2. Highway has targets for none of these by itself, so they are written out, and
//             chosen when the session is created (HasQuadProducts)
//   pairs     products are added in pairs in 16 bits, and then to 32. Quads whose pairs could leave 16 bits are split when
//             they are packed (QuadsFromWeight), so nothing saturates. On ARM the pairs of two quads of a row are added
//             in 16 bits: six instructions for two registers of pixels instead of eight
#if defined(GOSSAMER_KERNELS_QUANTISED_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_PRODUCT_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_PRODUCT_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_PRODUCT_INL_H_
#endif

#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/machine.h"
#include "kernels/quantised_panel.h"
#include "kernels/row_kernel.h"

// Which of the two this target can have.
#undef GOSSAMER_HAS_QUADS
#undef GOSSAMER_HAS_PAIRS
#if HWY_TARGET == HWY_SCALAR
#define GOSSAMER_HAS_QUADS 1
#define GOSSAMER_HAS_PAIRS 0
#elif HWY_ARCH_ARM_A64
#define GOSSAMER_HAS_QUADS 1
#define GOSSAMER_HAS_PAIRS 1
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
#define GOSSAMER_HAS_QUADS 1
#define GOSSAMER_HAS_PAIRS 1
#else
#define GOSSAMER_HAS_QUADS 0
#define GOSSAMER_HAS_PAIRS 1
#endif

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using ByteTag = hn::CappedTag<int32_t, 16>;
using ByteVector = hn::Vec<ByteTag>;

// sum + the four products of each lane. Of ARM's vectors of weights, quad number kEntry is taken.
#if HWY_TARGET == HWY_SCALAR
template <size_t kEntry, class D>
HWY_INLINE hn::Vec<D> AddQuads(D d, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
  const int32_t lane = hn::GetLane(input), weight = hn::GetLane(weights);
  PanelByte bytes[kQuad];
  int8_t factors[kQuad];
  std::memcpy(bytes, &lane, sizeof(bytes));
  std::memcpy(factors, &weight, sizeof(factors));
  // Wraps around as vectors do: only the whole sum is known to fit (CheckSums).
  uint32_t all = static_cast<uint32_t>(hn::GetLane(sum));
  for (int64_t i = 0; i < kQuad; ++i) all += static_cast<uint32_t>(bytes[i] * factors[i]);
  return hn::Set(d, static_cast<int32_t>(all));
}
#elif HWY_ARCH_ARM_A64
template <size_t kEntry, class D>
HWY_INLINE hn::Vec<D> AddQuads(D, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
  asm(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.4b[%3]"
      : "+w"(sum.raw)
      : "w"(input.raw), "w"(weights.raw), "i"(kEntry));
  return sum;
}

template <class D>
HWY_INLINE hn::Vec<D> AddPairs(D, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
  const int8x16_t bytes = vreinterpretq_s8_s32(input.raw);
  const int8x16_t factors = vreinterpretq_s8_s32(weights.raw);
  const int16x8_t low = vmull_s8(vget_low_s8(bytes), vget_low_s8(factors));
  const int16x8_t high = vmull_high_s8(bytes, factors);
  return hn::Vec<D>(vpadalq_s16(sum.raw, vpaddq_s16(low, high)));
}

// The same of two vectors of pixels, each by its weights. What pairs of both come to together is within 16 bits
// (kPairLimit).
template <class D>
HWY_INLINE hn::Vec<D> AddTwoPairs(D, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> next_input,
                                  hn::Vec<D> next_weights, hn::Vec<D> sum) {
  const int8x16_t bytes = vreinterpretq_s8_s32(input.raw), next_bytes = vreinterpretq_s8_s32(next_input.raw);
  const int8x16_t factors = vreinterpretq_s8_s32(weights.raw), next_factors = vreinterpretq_s8_s32(next_weights.raw);
  const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(bytes), vget_low_s8(factors)), vget_low_s8(next_bytes),
                                 vget_low_s8(next_factors));
  const int16x8_t high = vmlal_high_s8(vmull_high_s8(bytes, factors), next_bytes, next_factors);
  return hn::Vec<D>(vpadalq_s16(sum.raw, vpaddq_s16(low, high)));
}
#else
#if GOSSAMER_HAS_QUADS
template <size_t kEntry, class D>
HWY_INLINE hn::Vec<D> AddQuads(D, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
#if HWY_TARGET == HWY_AVX3
  asm("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(input.raw), "v"(weights.raw));
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(input.raw), "x"(weights.raw));
#endif
  return sum;
}
#endif

template <class D>
HWY_INLINE hn::Vec<D> AddPairs(D d, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
  const hn::Repartition<int16_t, D> pairs;
  const hn::Repartition<uint8_t, D> bytes;
  const hn::Repartition<int8_t, D> factors;
  const auto sums = hn::SatWidenMulPairwiseAdd(pairs, hn::BitCast(bytes, input), hn::BitCast(factors, weights));
  return hn::Add(sum, hn::WidenMulPairwiseAdd(d, sums, hn::Set(pairs, int16_t{1})));
}
#endif

// sum + the four products of each lane, where every lane has weights of its own.
template <bool kQuads, class D>
HWY_INLINE hn::Vec<D> AddLanes(D d, hn::Vec<D> input, hn::Vec<D> weights, hn::Vec<D> sum) {
  if constexpr (kQuads) {
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
    asm(".arch armv8.2-a+dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(sum.raw) : "w"(input.raw), "w"(weights.raw));
    return sum;
#elif GOSSAMER_HAS_QUADS
    return AddQuads<0>(d, input, weights, sum);
#endif
  } else {
#if GOSSAMER_HAS_PAIRS
    return AddPairs(d, input, weights, sum);
#endif
  }
}

template <bool kQuads>
struct ByteProduct {
  using Lane = int32_t;
  using Tag = ByteTag;
  static constexpr bool kAnyOrder = true;
  static constexpr bool kJoins = !kQuads && HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR;

  template <size_t kEntry>
  struct Weight {
    ByteVector all;
    HWY_INLINE explicit Weight(ByteVector weights) {
#if HWY_TARGET == HWY_SCALAR
      all = weights;
#else
      // Those of ARM's quad products are taken where they are.
      if constexpr (HWY_ARCH_ARM_A64 && kQuads) {
        all = weights;
      } else {
        all = hn::Broadcast<kEntry>(weights);
      }
#endif
    }
  };

  template <class D, size_t kEntry>
  HWY_INLINE static hn::Vec<D> MulAdd(D d, const Weight<kEntry>& weight, const int32_t* HWY_RESTRICT from,
                                      hn::Vec<D> sum) {
    const auto input = hn::LoadU(d, from);
    const auto weights = hn::ResizeBitCast(d, weight.all);
    if constexpr (kQuads) {
#if GOSSAMER_HAS_QUADS
      return AddQuads<kEntry>(d, input, weights, sum);
#endif
    } else {
#if GOSSAMER_HAS_PAIRS
      return AddPairs(d, input, weights, sum);
#endif
    }
  }

#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  template <class D, size_t kEntry, size_t kNext>
  HWY_INLINE static hn::Vec<D> MulAddTwo(D d, const Weight<kEntry>& weight, const int32_t* HWY_RESTRICT from,
                                         const Weight<kNext>& next_weight, const int32_t* HWY_RESTRICT next_from,
                                         hn::Vec<D> sum) {
    return AddTwoPairs(d, hn::LoadU(d, from), hn::ResizeBitCast(d, weight.all), hn::LoadU(d, next_from),
                       hn::ResizeBitCast(d, next_weight.all), sum);
  }
#endif
};

// Calls run(std::bool_constant<whether to use quad products>), of those that this target has.
template <class Run>
HWY_INLINE void WithProducts(bool quads, const Run& run) {
#if GOSSAMER_HAS_QUADS
  if (quads) return run(std::true_type());
#endif
#if GOSSAMER_HAS_PAIRS
  if (!quads) return run(std::false_type());
#endif
}

// What holds beside the sums: the loaded bytes and weights, and of pairs a vector of ones or two of products.
template <bool kQuads>
constexpr KernelTraits ProductTraits() {
#if HWY_TARGET == HWY_AVX3
  return kQuads ? KernelTraits{16, 16, 8, 0, true} : KernelTraits{16, 16, 8, 128};
#elif HWY_TARGET == HWY_AVX2
  return {8, 12, 12, 56};
#elif HWY_TARGET == HWY_SSE4
  return {4, 12, 12, 0};
#elif HWY_TARGET == HWY_SCALAR
  return {1, 12, 12, 12};
#else
  return kQuads ? KernelTraits{4, 28, 14, 56} : KernelTraits{4, 24, 12, 56};
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_QUANTISED_PRODUCT_INL_H_
