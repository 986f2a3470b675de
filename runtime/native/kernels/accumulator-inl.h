// The sums of one output row, held in registers: kFull vectors, and a shorter one of kTail lanes (0: none).
//
// Included once for each target.
#if defined(GOSSAMER_KERNELS_ACCUMULATOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_ACCUMULATOR_INL_H_
#undef GOSSAMER_KERNELS_ACCUMULATOR_INL_H_
#else
#define GOSSAMER_KERNELS_ACCUMULATOR_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/clamp-inl.h"

// GCC keeps an array of vectors in registers only if every loop over it is unrolled at once; if one is not, all sums
// are spilled and a kernel loses 30%.
#undef GOSSAMER_UNROLL
#if HWY_COMPILER_CLANG
#define GOSSAMER_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GOSSAMER_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using FloatVector = hn::Vec<FloatTag>;
inline constexpr size_t kLanes = HWY_MAX_LANES_D(FloatTag);

template <size_t kFull, size_t kTail>
struct AccumulatorRow {
  // A tail of 8 lanes needs vectors of 16, one of 4 needs vectors of 8; without a tail the tag is not used.
  using TailTag = hn::FixedTag<float, kTail == 0 ? kLanes : kTail>;
  static constexpr size_t kStored = kFull == 0 ? 1 : kFull;
  // Vectors if the tail is counted as a whole one.
  static constexpr size_t kVectors = kFull + (kTail != 0);
  static constexpr size_t kLaneCount = kFull * kLanes + kTail;

  FloatVector full[kStored];
  hn::Vec<TailTag> tail;

  HWY_INLINE void Fill(float value) {
    const FloatVector all = hn::Set(FloatTag(), value);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = all;
    if constexpr (kTail != 0) tail = hn::ResizeBitCast(TailTag(), all);
  }

  HWY_INLINE void Load(const float* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::LoadU(FloatTag(), from + i * kLanes);
    if constexpr (kTail != 0) tail = hn::LoadU(TailTag(), from + kFull * kLanes);
  }

  HWY_INLINE void Store(float* HWY_RESTRICT to) const {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) hn::StoreU(full[i], FloatTag(), to + i * kLanes);
    if constexpr (kTail != 0) hn::StoreU(tail, TailTag(), to + kFull * kLanes);
  }

  HWY_INLINE void Add(const float* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::Add(full[i], hn::LoadU(FloatTag(), from + i * kLanes));
    if constexpr (kTail != 0) tail = hn::Add(tail, hn::LoadU(TailTag(), from + kFull * kLanes));
  }

  HWY_INLINE void AddAll(float value) {
    const FloatVector all = hn::Set(FloatTag(), value);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::Add(full[i], all);
    if constexpr (kTail != 0) tail = hn::Add(tail, hn::ResizeBitCast(TailTag(), all));
  }

  // += weight * from[0 .. lanes); the weight is in all lanes.
  HWY_INLINE void MulAdd(FloatVector weight, const float* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) {
      full[i] = hn::MulAdd(weight, hn::LoadU(FloatTag(), from + i * kLanes), full[i]);
    }
    if constexpr (kTail != 0) {
      tail = hn::MulAdd(hn::ResizeBitCast(TailTag(), weight), hn::LoadU(TailTag(), from + kFull * kLanes), tail);
    }
  }

  HWY_INLINE void Clamp(float lower, float upper) {
    const FloatVector low = hn::Set(FloatTag(), lower);
    const FloatVector high = hn::Set(FloatTag(), upper);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = Clamped(full[i], low, high);
    if constexpr (kTail != 0) {
      tail = Clamped(tail, hn::ResizeBitCast(TailTag(), low), hn::ResizeBitCast(TailTag(), high));
    }
  }

  // The tail as a whole vector, zeros after it.
  HWY_INLINE FloatVector WidenedTail() const { return hn::ZeroExtendResizeBitCast(FloatTag(), TailTag(), tail); }
};

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_ACCUMULATOR_INL_H_
