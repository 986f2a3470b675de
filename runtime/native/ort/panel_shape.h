// Shapes of panel tensors as ONNX Runtime sees them.
#ifndef GOSSAMER_ORT_PANEL_SHAPE_H_
#define GOSSAMER_ORT_PANEL_SHAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/panel.h"
#include "kernels/quantised_panel.h"
#include "ort/op.h"

namespace gossamer {

inline void RequireImage(int64_t channels, int64_t height, int64_t width) {
  Require(CheckPanelSize(channels, height, width));
}

// A tensor's dimensions as those of a batch of images. A sequence [images, channels, length] is an image of one row.
struct ImageShape {
  int64_t images;
  int64_t channels;
  int64_t height;
  int64_t width;
};

inline bool IsImage(const std::vector<int64_t>& shape) { return shape.size() == 3 || shape.size() == 4; }

// Needs IsImage.
inline ImageShape ImageOf(const std::vector<int64_t>& shape) {
  return {shape[0], shape[1], shape.size() == 4 ? shape[2] : 1, shape.back()};
}

// Whether shape inference knows height and width.
inline bool KnowsImage(const InferredShape& shape) {
  if (shape.size() != 3 && shape.size() != 4) return false;
  for (size_t axis = 2; axis < shape.size(); ++axis) {
    if (!shape[axis].IsInt() || shape[axis].AsInt() < 1) return false;
  }
  return true;
}
inline bool KnowsImage(const std::vector<int64_t>& shape) {
  return IsImage(shape) && shape[2] >= 1 && shape.back() >= 1;
}
inline int64_t HeightOf(const InferredShape& shape) { return shape.size() == 4 ? shape[2].AsInt() : 1; }
inline int64_t WidthOf(const InferredShape& shape) { return shape[shape.size() - 1].AsInt(); }

// What the second dimension of a panel tensor says.
struct FloatPanels {
  static int64_t Storage(const PanelLayout& layout, int64_t channels) { return layout.storage_channels(channels); }
  static int64_t Channels(const PanelLayout& layout, int64_t storage) { return layout.channels_of(storage); }
  static constexpr const char* kSources = "ToPanel or SparseConv";
};
struct BytePanels {
  static int64_t Storage(const PanelLayout& layout, int64_t channels) { return QuantisedStorage(layout, channels); }
  static int64_t Channels(const PanelLayout& layout, int64_t storage) { return ChannelsOfQuantised(layout, storage); }
  static constexpr const char* kSources = "QuantisedToPanel or QuantisedConv";
};

// Checks that `shape` is that of a panel tensor of `channels` channels, for the op of this name.
template <class Panels = FloatPanels>
ImageShape RequirePanel(const char* op, const std::vector<int64_t>& shape, int64_t channels) {
  Require(IsImage(shape), "a panel tensor has three or four dimensions");
  const ImageShape image = ImageOf(shape);
  RequireImage(channels, image.height, image.width);
  const PanelLayout layout = MakePanelLayout(image.height, image.width);
  if (image.channels == Panels::Storage(layout, channels)) return image;
  const std::string expected = std::string(op) + ": expected an input of " + std::to_string(channels) + " channels, got ";
  if (const int64_t got = Panels::Channels(layout, image.channels); got > 0) Fail(expected + std::to_string(got));
  Fail(expected + "a tensor of " + std::to_string(image.channels) +
       " storage channels, which no panel of this size has: is it the output of " + Panels::kSources + "?");
}

// The same where the session's creation knows the shape already.
template <class Panels = FloatPanels>
void RequireKnownPanel(const char* op, const std::vector<int64_t>& known, int64_t channels) {
  if (KnowsImage(known) && known[1] >= 1) RequirePanel<Panels>(op, known, channels);
}

// `rank` is 4, or 3 for sequences.
template <class Panels = FloatPanels>
std::vector<int64_t> PanelShape(size_t rank, int64_t images, const PanelLayout& layout, int64_t channels) {
  const int64_t storage = Panels::Storage(layout, channels);
  if (rank == 3) return {images, storage, layout.width};
  return {images, storage, layout.height, layout.width};
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PANEL_SHAPE_H_
