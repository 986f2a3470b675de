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
#undef GOSSAMER_KEEP_LOOP
#if HWY_COMPILER_CLANG
#define GOSSAMER_UNROLL _Pragma("clang loop unroll(full)")
#define GOSSAMER_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define GOSSAMER_UNROLL _Pragma("GCC unroll 16")
#define GOSSAMER_KEEP_LOOP _Pragma("GCC unroll 1")
#endif

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using FloatVector = hn::Vec<FloatTag>;
inline constexpr size_t kLanes = HWY_MAX_LANES_D(FloatTag);

// What an entry of the stream does to a sum: here one float times another. A Product has
//   Lane, Tag                      what a sum's lanes are
//   Weight<kEntry>                 one of the weights of a vector that holds four entries' in each 128 bits, made ready
//   MulAdd(d, weight, from, sum)   sum + weight * from[0 .. lanes)
//   kAnyOrder                      whether a sum is the same in whatever order its products are added
//   kJoins                         whether two entries of a row take less together than one after the other; then also
//   MulAddTwo(d, weight, from, next_weight, next_from, sum)
struct FloatProduct {
  using Lane = float;
  using Tag = FloatTag;
  static constexpr bool kAnyOrder = false;
  static constexpr bool kJoins = false;

  template <size_t kEntry>
  struct Weight {
    FloatVector all;
    HWY_INLINE explicit Weight(FloatVector weights) {
#if HWY_TARGET == HWY_SCALAR
      all = weights;
#else
      all = hn::Broadcast<kEntry>(weights);
#endif
    }
  };

  template <class D, size_t kEntry>
  HWY_INLINE static hn::Vec<D> MulAdd(D d, const Weight<kEntry>& weight, const float* HWY_RESTRICT from,
                                      hn::Vec<D> sum) {
    return hn::MulAdd(hn::ResizeBitCast(d, weight.all), hn::LoadU(d, from), sum);
  }
};

template <class SumProduct, size_t kFull, size_t kTail>
struct SumRow {
  using Product = SumProduct;
  using Lane = typename Product::Lane;
  using Tag = typename Product::Tag;
  using Vector = hn::Vec<Tag>;
  // A tail of 8 lanes needs vectors of 16, one of 4 needs vectors of 8; without a tail the tag is not used.
  using TailTag = hn::FixedTag<Lane, kTail == 0 ? kLanes : kTail>;
  static constexpr size_t kStored = kFull == 0 ? 1 : kFull;
  // Vectors if the tail is counted as a whole one.
  static constexpr size_t kVectors = kFull + (kTail != 0);
  static constexpr size_t kLaneCount = kFull * kLanes + kTail;

  Vector full[kStored];
  hn::Vec<TailTag> tail;

  HWY_INLINE void Fill(Lane value) {
    const Vector all = hn::Set(Tag(), value);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = all;
    if constexpr (kTail != 0) tail = hn::ResizeBitCast(TailTag(), all);
  }

  HWY_INLINE void Load(const Lane* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::LoadU(Tag(), from + i * kLanes);
    if constexpr (kTail != 0) tail = hn::LoadU(TailTag(), from + kFull * kLanes);
  }

  HWY_INLINE void Store(Lane* HWY_RESTRICT to) const {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) hn::StoreU(full[i], Tag(), to + i * kLanes);
    if constexpr (kTail != 0) hn::StoreU(tail, TailTag(), to + kFull * kLanes);
  }

  HWY_INLINE void Add(const Lane* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::Add(full[i], hn::LoadU(Tag(), from + i * kLanes));
    if constexpr (kTail != 0) tail = hn::Add(tail, hn::LoadU(TailTag(), from + kFull * kLanes));
  }

  HWY_INLINE void Add(const SumRow& other) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::Add(full[i], other.full[i]);
    if constexpr (kTail != 0) tail = hn::Add(tail, other.tail);
  }

  HWY_INLINE void AddAll(Lane value) {
    const Vector all = hn::Set(Tag(), value);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = hn::Add(full[i], all);
    if constexpr (kTail != 0) tail = hn::Add(tail, hn::ResizeBitCast(TailTag(), all));
  }

  // += weight * from[0 .. lanes)
  template <size_t kEntry>
  HWY_INLINE void MulAdd(const typename Product::template Weight<kEntry>& weight, const Lane* HWY_RESTRICT from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = Product::MulAdd(Tag(), weight, from + i * kLanes, full[i]);
    if constexpr (kTail != 0) tail = Product::MulAdd(TailTag(), weight, from + kFull * kLanes, tail);
  }

  // The same of two entries.
  template <size_t kEntry, size_t kNext>
  HWY_INLINE void MulAddTwo(const typename Product::template Weight<kEntry>& weight, const Lane* HWY_RESTRICT from,
                            const typename Product::template Weight<kNext>& next_weight,
                            const Lane* HWY_RESTRICT next_from) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) {
      full[i] = Product::MulAddTwo(Tag(), weight, from + i * kLanes, next_weight, next_from + i * kLanes, full[i]);
    }
    if constexpr (kTail != 0) {
      tail = Product::MulAddTwo(TailTag(), weight, from + kFull * kLanes, next_weight, next_from + kFull * kLanes,
                                tail);
    }
  }

  HWY_INLINE void Clamp(Lane lower, Lane upper) {
    const Vector low = hn::Set(Tag(), lower);
    const Vector high = hn::Set(Tag(), upper);
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) full[i] = Clamped(full[i], low, high);
    if constexpr (kTail != 0) {
      tail = Clamped(tail, hn::ResizeBitCast(TailTag(), low), hn::ResizeBitCast(TailTag(), high));
    }
  }

  // The tail as a whole vector, zeros after it.
  HWY_INLINE Vector WidenedTail() const { return hn::ZeroExtendResizeBitCast(Tag(), TailTag(), tail); }
};

template <size_t kFull, size_t kTail>
using AccumulatorRow = SumRow<FloatProduct, kFull, kTail>;

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_ACCUMULATOR_INL_H_
