#include "kernels/lane_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/lane_sums.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Two channels are summed in 16 bits each of a word, so many that they cannot leave them.
void AddHere(const PanelByte* lanes, int64_t count, int32_t* sums) {
  constexpr int64_t kMost = 256;
  const hn::RebindToUnsigned<FloatTag> d;
  const auto channels = hn::Set(d, 0x00FF00FFu);
  const auto offset = hn::Set(d, kPanelOffset * 0x01010101u);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(lanes);
  for (; count > 0; count -= kMost, words += kMost) {
    auto even = hn::Zero(d), odd = hn::Zero(d);
    const auto add = [&](hn::Vec<decltype(d)> lane) HWY_ATTR {
      even = hn::Add(even, hn::And(lane, channels));
      odd = hn::Add(odd, hn::And(hn::ShiftRight<8>(lane), channels));
    };
    ForEachVector(
        HWY_MIN(count, kMost), [&](int64_t i) HWY_ATTR { add(hn::Xor(hn::LoadU(d, words + i), offset)); },
        [&](int64_t i, size_t rest) HWY_ATTR {
          add(hn::IfThenElseZero(hn::FirstN(d, rest), hn::Xor(hn::LoadN(d, words + i, rest), offset)));
        });
    const uint32_t of_even = hn::ReduceSum(d, even), of_odd = hn::ReduceSum(d, odd);
    sums[0] += static_cast<int32_t>(of_even & 0xFFFF);
    sums[1] += static_cast<int32_t>(of_odd & 0xFFFF);
    sums[2] += static_cast<int32_t>(of_even >> 16);
    sums[3] += static_cast<int32_t>(of_odd >> 16);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(AddHere);

void LaneSums::Add(const PanelByte* lanes, int64_t count) {
  constexpr int64_t kFew = 16;  // of which a vector's sum takes longer than they do
  if (count >= kFew) return HWY_DYNAMIC_DISPATCH(AddHere)(lanes, count, of);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < kQuad; ++c) of[c] += ValueOf(lanes[kQuad * i + c]);
  }
}

}  // namespace gossamer
#endif  // HWY_ONCE
