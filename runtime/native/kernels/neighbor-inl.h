// Vectors that look one pixel to the left or to the right across two neighbouring vectors.
#if defined(GOSSAMER_KERNELS_NEIGHBOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_NEIGHBOR_INL_H_
#undef GOSSAMER_KERNELS_NEIGHBOR_INL_H_
#else
#define GOSSAMER_KERNELS_NEIGHBOR_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// { last lane of `before`, all lanes of `v` but the last }
HWY_INLINE FloatVector LeftNeighbors(FloatVector before, FloatVector v) {
#if HWY_TARGET == HWY_AVX3
  return FloatVector{
      _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(v.raw), _mm512_castps_si512(before.raw), 15))};
#elif HWY_TARGET == HWY_AVX2
  const FloatTag d;
  return hn::CombineShiftRightLanes<3>(d, v, hn::ConcatLowerUpper(d, v, before));
#elif HWY_TARGET == HWY_SCALAR
  (void)v;
  return before;
#else
  return hn::CombineShiftRightLanes<3>(FloatTag(), v, before);
#endif
}

// { all lanes of `v` but the first, first lane of `after` }
HWY_INLINE FloatVector RightNeighbors(FloatVector v, FloatVector after) {
#if HWY_TARGET == HWY_AVX3
  return FloatVector{
      _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(after.raw), _mm512_castps_si512(v.raw), 1))};
#elif HWY_TARGET == HWY_AVX2
  const FloatTag d;
  return hn::CombineShiftRightLanes<1>(d, hn::ConcatLowerUpper(d, after, v), v);
#elif HWY_TARGET == HWY_SCALAR
  (void)v;
  return after;
#else
  return hn::CombineShiftRightLanes<1>(FloatTag(), after, v);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_NEIGHBOR_INL_H_
