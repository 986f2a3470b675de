// What becomes of finished sums that lie token by token: activation.
#if defined(GOSSAMER_KERNELS_FINISH_OUTPUTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_FINISH_OUTPUTS_INL_H_
#undef GOSSAMER_KERNELS_FINISH_OUTPUTS_INL_H_
#else
#define GOSSAMER_KERNELS_FINISH_OUTPUTS_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/activation-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Clamps and activates `count` finished sums.
HWY_INLINE void FinishOutputs(const Epilogue& epilogue, float* HWY_RESTRICT row, int64_t count) {
  const FloatTag d;
  const FloatVector low = hn::Set(d, epilogue.lower);
  const FloatVector high = hn::Set(d, epilogue.upper);
  ForEachVector(
      count,
      [&](int64_t i) HWY_ATTR { hn::StoreU(Clamped(hn::LoadU(d, row + i), low, high), d, row + i); },
      [&](int64_t i, size_t rest) HWY_ATTR {
        hn::StoreN(Clamped(hn::LoadN(d, row + i, rest), low, high), d, row + i, rest);
      });
  if (!epilogue.is_clamp()) ActivateRow(epilogue, row, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_FINISH_OUTPUTS_INL_H_
