// The larger and the smaller of two numbers where one may be NaN. Highway's Max and Min say nothing of NaN, and drop it on
// most processors: a sum of NaN would be stored as the lower bound of its activation.
#if defined(GOSSAMER_KERNELS_CLAMP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_CLAMP_INL_H_
#undef GOSSAMER_KERNELS_CLAMP_INL_H_
#else
#define GOSSAMER_KERNELS_CLAMP_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// a > b ? a : b, and b where b is NaN. One instruction on x86, whose own gives its second operand where either is NaN, and
// on 64-bit ARM, where FMAX gives NaN (Highway takes FMAXNM, which does not).
template <class V>
HWY_INLINE V GreaterOr(V a, V b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::Max(a, b);
#elif HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  return V{vmaxq_f32(a.raw, b.raw)};
#else
  return hn::IfThenElse(hn::Gt(a, b), a, b);
#endif
}

// a < b ? a : b, and b where b is NaN.
template <class V>
HWY_INLINE V LesserOr(V a, V b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  return hn::Min(a, b);
#elif HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  return V{vminq_f32(a.raw, b.raw)};
#else
  return hn::IfThenElse(hn::Lt(a, b), a, b);
#endif
}

// v within the bounds, which are numbers; NaN stays NaN.
template <class V>
HWY_INLINE V Clamped(V v, V low, V high) {
  return LesserOr(high, GreaterOr(low, v));
}

// The larger of the two, and NaN if either is, as in torch. (ONNX Runtime's own max pooling drops NaN.)
template <class V>
HWY_INLINE V Larger(V a, V b) {
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
  return GreaterOr(a, b);
#else
  return hn::IfThenElse(hn::IsNaN(a), a, GreaterOr(a, b));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_CLAMP_INL_H_
