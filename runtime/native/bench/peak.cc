#include "bench/peak.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/peak.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve independent sums hide the latency of four cycles at up to three multiply-adds a cycle.
double MultiplyAdds(size_t rounds, float* result) {
  const hn::CappedTag<float, 16> d;
  using V = hn::Vec<decltype(d)>;
  // Each begins with another value: equal sums would be computed once.
  const auto start = [&](float value) HWY_ATTR { return hn::Set(d, value + *result); };
  V s0 = start(0), s1 = start(1), s2 = start(2), s3 = start(3), s4 = start(4), s5 = start(5), s6 = start(6), s7 = start(7);
  V s8 = start(8), s9 = start(9), s10 = start(10), s11 = start(11);
  const V a = hn::Set(d, 0.999f + *result);
  const V b = hn::Set(d, 1e-3f);
  for (size_t i = 0; i < rounds; ++i) {
    s0 = hn::MulAdd(s0, a, b), s1 = hn::MulAdd(s1, a, b), s2 = hn::MulAdd(s2, a, b), s3 = hn::MulAdd(s3, a, b);
    s4 = hn::MulAdd(s4, a, b), s5 = hn::MulAdd(s5, a, b), s6 = hn::MulAdd(s6, a, b), s7 = hn::MulAdd(s7, a, b);
    s8 = hn::MulAdd(s8, a, b), s9 = hn::MulAdd(s9, a, b), s10 = hn::MulAdd(s10, a, b), s11 = hn::MulAdd(s11, a, b);
  }
  const V sum = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)),
                        hn::Add(hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)), hn::Add(hn::Add(s8, s9), hn::Add(s10, s11))));
  *result = hn::GetLane(sum);
  return 12.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(MultiplyAdds);

double MeasurePeak() {
  using Clock = std::chrono::steady_clock;
  double best = 0.0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    float result = 0.0f;
    const auto start = Clock::now();
    const double done = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(500000, &result);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, done / seconds);
    volatile float keep = result;
    (void)keep;
  }
  return best;
}

}  // namespace gossamer
#endif  // HWY_ONCE
