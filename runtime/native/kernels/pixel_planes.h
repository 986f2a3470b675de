// First layers of images of three channels and a stride of two: a lane holds four bytes that follow one another in a row of
// pixels, whatever their channels, instead of the three of one pixel and an empty one. Seven pixels are then five lanes and a
// byte; such bytes of four kernel rows are a lane together, so that 7 x 7 pixels are 37 lanes.
#ifndef GOSSAMER_KERNELS_PIXEL_PLANES_H_
#define GOSSAMER_KERNELS_PIXEL_PLANES_H_

#include <cstdint>

#include "format/sparse_weight.h"
#include "kernels/convolution_shape.h"
#include "kernels/panel.h"
#include "kernels/quantised_weight.h"

namespace gossamer {

// Channels of a pixel.
inline constexpr int64_t kColours = 3;

// Lanes of a kernel row.
constexpr int64_t PixelPlanes(int64_t kernel_width) { return (kColours * kernel_width + kQuad - 1) / kQuad; }

// Whether the last of them would hold one byte only. It is then free for a lane that four kernel rows share: row g has that of
// rows 4 g to 4 g + 3.
constexpr bool JoinsLastBytes(int64_t kernel_width) { return kColours * kernel_width % kQuad == 1; }

// Rows that are staged below one another, so that a tile finds those that it shares with the tile above it.
constexpr int64_t StagedPixelRows(int64_t kernel_height, int64_t stride) {
  constexpr int64_t kTilesBelow = 3;
  return stride < kernel_height && stride <= 2 ? kernel_height + kTilesBelow * stride : kernel_height;
}

// Lanes of memory for them: the planes of each row, then the last bytes of each where these are joined.
constexpr int64_t StagedPixelLanes(const ConvolutionShape& shape, int64_t planes, bool joins, int64_t row_lanes) {
  return StagedPixelRows(shape.kernel_height, shape.stride_height) * (planes + joins) * row_lanes;
}

// What of an image stands in the scratch of a thread.
struct StagedPixels {
  const int32_t* image = nullptr;
  int64_t tile = -1;
  int64_t row = 0;  // of the staged ones, where this tile's begin
};

// The pixel, counted from the kernel's first column, in which a plane's first byte is.
constexpr int64_t FirstPixel(int64_t plane) { return kQuad * plane / kColours; }

// Whether a layer is one of those, and has fewer lanes so; tiles are then single rows of the image.
bool SuitsPixelPlanes(const ConvolutionShape& shape, const PanelLayout& output);

// The same convolution over those lanes: one channel of them, and as many columns as planes.
ConvolutionShape PixelShape(const ConvolutionShape& shape);

// Its weight.
QuadWeight QuadsOfPixels(const ConvolutionShape& shape, const SparseByteWeight& weight);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_PIXEL_PLANES_H_
