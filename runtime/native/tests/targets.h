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

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_TARGETS_H_
