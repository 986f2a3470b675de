// Activations that are more than a clamp, applied to a row of finished sums.
#if defined(GOSSAMER_KERNELS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_ACTIVATION_INL_H_
#undef GOSSAMER_KERNELS_ACTIVATION_INL_H_
#else
#define GOSSAMER_KERNELS_ACTIVATION_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/copy-inl.h"
#include "kernels/epilogue.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// All but the last are x times a gate from 0 to 1: NaN gives NaN, and -infinity, whose gate is 0, as well; so do ONNX Runtime's.

// x * (min(max(x + 3, 0), 6) / 6), for x * 6 may be beyond the range of a float.
template <class D, class V>
HWY_INLINE V HardSwish(D d, V x) {
  const V gate = hn::Min(hn::Max(hn::Add(x, hn::Set(d, 3.0f)), hn::Zero(d)), hn::Set(d, 6.0f));
  return hn::Mul(x, hn::Mul(gate, hn::Set(d, 1.0f / 6.0f)));
}

// x / (1 + exp(-x)). Below -88 the exponential leaves the range of a float; the result is 0 to 1e-36 there, taken as 0.
template <class D, class V>
HWY_INLINE V Silu(D d, V x) {
  const V least = hn::Set(d, -88.0f);
  const V result = hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, hn::Neg(hn::Max(x, least)))));
  return hn::IfThenElse(hn::Lt(x, least), hn::Mul(x, hn::Zero(d)), result);
}

// x / 2 * (1 + erf(x / sqrt(2))). For z = |x| / sqrt(2), erfc(z) = t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + p z):
// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7. 1 + erf is erfc for negative x, so nothing cancels.
template <class D, class V>
HWY_INLINE V Gelu(D d, V x) {
  const V most = hn::Set(d, 9.0f);  // erfc is below 1e-36 from there on, taken as 0
  const V z = hn::Min(hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678118654752f)), most);
  const V t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(hn::Set(d, 0.3275911f), z, hn::Set(d, 1.0f)));
  V sum = hn::Set(d, 1.061405429f);
  sum = hn::MulAdd(sum, t, hn::Set(d, -1.453152027f));
  sum = hn::MulAdd(sum, t, hn::Set(d, 1.421413741f));
  sum = hn::MulAdd(sum, t, hn::Set(d, -0.284496736f));
  sum = hn::MulAdd(sum, t, hn::Set(d, 0.254829592f));
  const V erfc = hn::IfThenElseZero(hn::Lt(z, most), hn::Mul(hn::Mul(sum, t), hn::Exp(d, hn::Neg(hn::Mul(z, z)))));
  const V one_and_erf = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), erfc, hn::Sub(hn::Set(d, 2.0f), erfc));
  return hn::Mul(hn::Mul(hn::Set(d, 0.5f), x), one_and_erf);
}

// x, and slope * x below 0; NaN stays NaN.
template <class D, class V>
HWY_INLINE V LeakyRelu(D d, V x, float slope) {
  return hn::IfThenElse(hn::Ge(x, hn::Zero(d)), x, hn::Mul(x, hn::Set(d, slope)));
}

template <class D, class V>
HWY_INLINE V Activate(D d, V x, const Epilogue& epilogue) {
  switch (epilogue.activation) {
    case Activation::kHardSwish:
      return HardSwish(d, x);
    case Activation::kSilu:
      return Silu(d, x);
    case Activation::kGelu:
      return Gelu(d, x);
    case Activation::kLeakyRelu:
      return LeakyRelu(d, x, epilogue.slope);
    default:
      return x;
  }
}

// Does nothing for the activations that are a clamp.
inline HWY_NOINLINE void ActivateRow(const Epilogue& epilogue, float* HWY_RESTRICT row, int64_t count) {
  const FloatTag d;
  ForEachVector(
      count,
      [&](int64_t i) HWY_ATTR { hn::StoreU(Activate(d, hn::LoadU(d, row + i), epilogue), d, row + i); },
      [&](int64_t i, size_t rest) HWY_ATTR {
        hn::StoreN(Activate(d, hn::LoadN(d, row + i, rest), epilogue), d, row + i, rest);
      });
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_ACTIVATION_INL_H_
