// From four planes of bytes to lanes of a panel.
#if defined(GOSSAMER_KERNELS_INTERLEAVE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_INTERLEAVE_INL_H_
#undef GOSSAMER_KERNELS_INTERLEAVE_INL_H_
#else
#define GOSSAMER_KERNELS_INTERLEAVE_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/quantised_panel.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Pixels that are interleaved at once at the end of a run.
inline constexpr int64_t kInterleaved = 16;

template <class D>
HWY_INLINE void InterleaveVector(D d, const uint8_t* HWY_RESTRICT planes, int64_t pitch, uint8_t* HWY_RESTRICT lanes) {
  hn::StoreInterleaved4(hn::LoadU(d, planes), hn::LoadU(d, planes + pitch), hn::LoadU(d, planes + 2 * pitch),
                        hn::LoadU(d, planes + 3 * pitch), d, lanes);
}

// lanes[pixel] = the bytes of four planes at that pixel. Reads up to 15 bytes more of each plane, and writes as many
// pixels too many where that is allowed.
HWY_INLINE void Interleave(const PanelByte* planes, int64_t pitch, int64_t pixels, bool may_overrun, PanelByte* lanes) {
  const uint8_t* HWY_RESTRICT from = reinterpret_cast<const uint8_t*>(planes);
  uint8_t* HWY_RESTRICT to = reinterpret_cast<uint8_t*>(lanes);
  int64_t i = 0;
#if HWY_TARGET == HWY_SCALAR
  (void)may_overrun;
  for (; i < pixels; ++i) {
    for (int64_t c = 0; c < kQuad; ++c) to[kQuad * i + c] = from[c * pitch + i];
  }
#else
  const hn::CappedTag<uint8_t, 64> whole;
  const int64_t at_once = static_cast<int64_t>(hn::MaxLanes(whole));
  for (; i + at_once <= pixels; i += at_once) InterleaveVector(whole, from + i, pitch, to + kQuad * i);
  const hn::CappedTag<uint8_t, kInterleaved> part;
  for (; i + kInterleaved <= pixels || (may_overrun && i < pixels); i += kInterleaved) {
    InterleaveVector(part, from + i, pitch, to + kQuad * i);
  }
  if (i < pixels) {
    HWY_ALIGN uint8_t rest[kQuad * kInterleaved];
    InterleaveVector(part, from + i, pitch, rest);
    std::memcpy(to + kQuad * i, rest, static_cast<size_t>(kQuad * (pixels - i)));
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_INTERLEAVE_INL_H_
