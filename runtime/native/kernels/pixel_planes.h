// First layers of images of three channels and a stride of two: a lane holds four bytes that follow one another in a row of
// pixels, whatever their channels, instead of the three of one pixel and an empty one. Seven pixels are then six lanes.
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
