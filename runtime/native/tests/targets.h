// Runs a test body on every instruction set that this machine has.
#ifndef GOSSAMER_TESTS_TARGETS_H_
#define GOSSAMER_TESTS_TARGETS_H_

#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "kernels/convolution.h"

namespace gossamer {

template <class Body>
void ForEachTarget(const Body& body) {
  // The baseline (scalar code on x86) is not part of the supported targets that Highway lists once better ones are.
  int64_t all = HWY_TARGETS;
  for (; all != 0; all &= all - 1) {
    const int64_t target = all & -all;
    if (target != HWY_STATIC_TARGET && (hwy::SupportedTargets() & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(CurrentTargetName());
    ASSERT_STREQ(CurrentTargetName(), hwy::TargetName(target));
    body();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Calls body(arithmetic) for those that this processor has.
template <class Body>
void ForEachArithmetic(const Body& body) {
  for (const Arithmetic arithmetic : {Arithmetic::kFloat, Arithmetic::kRoundedHalf, Arithmetic::kHalf}) {
    if (arithmetic != Arithmetic::kHalf || HasHalfProducts()) body(arithmetic);
  }
}

// What results may be off by, of the sum of the absolute values of what was added. Of fp16 (half_row-inl.h): two roundings, of
// weight and input, and chains of 32 sums. No activation is steeper than 1.5.
inline double AllowedError(Arithmetic arithmetic, const Epilogue& epilogue) {
  if (arithmetic == Arithmetic::kFloat) return 1e-5;
  return (epilogue.is_clamp() ? 1.0 : 1.5) * 34.0 / 2048.0;
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_TARGETS_H_
