// Shapes of panel tensors as ONNX Runtime sees them.
#ifndef GOSSAMER_ORT_PANEL_SHAPE_H_
#define GOSSAMER_ORT_PANEL_SHAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/panel.h"
#include "ort/op.h"

namespace gossamer {

// Refuses sizes whose products could overflow; a model file can declare any.
inline constexpr int64_t kMaximumExtent = int64_t{1} << 24;
inline constexpr double kMaximumFloats = 1e12;

inline void RequireImage(int64_t channels, int64_t height, int64_t width) {
  Require(channels >= 1 && height >= 1 && width >= 1 && channels <= kMaximumExtent && height <= kMaximumExtent &&
              width <= kMaximumExtent,
          "channels, height and width must be within 1 and 2^24");
  Require(static_cast<double>(channels) * static_cast<double>(height + 128) * static_cast<double>(width + 128) <
              kMaximumFloats,
          "the image is too large");
}

// Whether shape inference knows height and width.
inline bool KnowsImage(const InferredShape& shape) {
  return shape.size() == 4 && shape[2].IsInt() && shape[3].IsInt() && shape[2].AsInt() >= 1 && shape[3].AsInt() >= 1;
}

// Checks that `shape` is that of a panel tensor of `channels` channels and returns its layout.
inline PanelLayout RequirePanel(const std::vector<int64_t>& shape, int64_t channels) {
  Require(shape.size() == 4, "a panel tensor has four dimensions");
  RequireImage(channels, shape[2], shape[3]);
  const PanelLayout layout = MakePanelLayout(shape[2], shape[3]);
  if (shape[1] != layout.storage_channels(channels)) {
    Fail("a panel of " + std::to_string(channels) + " channels of this size has " +
         std::to_string(layout.storage_channels(channels)) + " storage channels, but the tensor has " +
         std::to_string(shape[1]) + "; is it the output of ToPanel or SparseConv?");
  }
  return layout;
}

inline std::vector<int64_t> PanelShape(int64_t images, const PanelLayout& layout, int64_t channels) {
  return {images, layout.storage_channels(channels), layout.height, layout.width};
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PANEL_SHAPE_H_
