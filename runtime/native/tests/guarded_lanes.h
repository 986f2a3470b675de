// Panels of bytes with a guard behind.
#ifndef GOSSAMER_TESTS_GUARDED_LANES_H_
#define GOSSAMER_TESTS_GUARDED_LANES_H_

#include <cstdint>
#include <vector>

#include "kernels/quantised_panel.h"

namespace gossamer {

inline constexpr int32_t kUntouchedLane = 0x12345678;

// Lanes aligned to 64 bytes.
class GuardedLanes {
 public:
  explicit GuardedLanes(int64_t count) : storage_(static_cast<size_t>(count) + 16 + kGuard, kUntouchedLane) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(storage_.data());
    skip_ = (64 - address % 64) % 64 / sizeof(int32_t);
    count_ = static_cast<size_t>(count);
  }
  GuardedLanes(const GuardedLanes&) = delete;
  GuardedLanes& operator=(const GuardedLanes&) = delete;

  int32_t* data() { return storage_.data() + skip_; }
  const int32_t* data() const { return storage_.data() + skip_; }
  PanelByte* bytes() { return reinterpret_cast<PanelByte*>(data()); }
  bool guard_is_untouched() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (data()[count_ + i] != kUntouchedLane) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  std::vector<int32_t> storage_;
  size_t skip_ = 0;
  size_t count_ = 0;
};

// Fills panels of a batch from [images][channels][height][width]. The storage is what ONNX Runtime will allocate.
inline void FillPanels(const PanelLayout& layout, int64_t channels, int64_t images, const std::vector<uint8_t>& planar,
                       GuardedLanes* panels) {
  const int64_t pixels = channels * layout.height * layout.width;
  for (int64_t image = 0; image < images; ++image) {
    QuantisedFromPlanar(layout, channels, planar.data() + image * pixels, 0, 77, {0, layout.tiles()},
                        {0, QuadsOf(channels)}, panels->bytes() + kQuad * image * QuantisedStride(layout, channels));
  }
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_GUARDED_LANES_H_
