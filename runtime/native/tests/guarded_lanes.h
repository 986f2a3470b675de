// Panels of bytes with a guard behind.
#ifndef GOSSAMER_TESTS_GUARDED_LANES_H_
#define GOSSAMER_TESTS_GUARDED_LANES_H_

#include <cstdint>
#include <vector>

#include "kernels/quantised_panel.h"
#include "tests/guarded.h"

namespace gossamer {

class GuardedLanes : public Guarded<int32_t> {
 public:
  explicit GuardedLanes(int64_t count) : Guarded(count, 0x12345678) {}
  PanelByte* bytes() { return reinterpret_cast<PanelByte*>(data()); }
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
