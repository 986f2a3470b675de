#include "kernels/pixel_planes.h"

#include <vector>

namespace gossamer {

bool SuitsPixelPlanes(const ConvolutionShape& shape, const PanelLayout& output) {
  constexpr int64_t kLargest = 11;
  return shape.input_channels == kColours && shape.groups == 1 && shape.stride_width == 2 && shape.dilation_width == 1 &&
         PixelPlanes(shape.kernel_width) < shape.kernel_width && shape.kernel_width <= kLargest && shape.kernel_height <= kLargest &&
         output.tile_rows == 1;
}

ConvolutionShape PixelShape(const ConvolutionShape& shape) {
  ConvolutionShape lanes = shape;
  lanes.input_channels = 1;
  lanes.kernel_width = PixelPlanes(shape.kernel_width);
  // As many outputs in a row as before.
  lanes.pad_right -= shape.kernel_width - lanes.kernel_width;
  return lanes;
}

QuadWeight QuadsOfPixels(const ConvolutionShape& shape, const SparseByteWeight& weight) {
  const int64_t planes = PixelPlanes(shape.kernel_width), taps = shape.taps();
  QuadWeight quads;
  quads.rows = weight.rows;
  quads.columns = shape.kernel_height * planes;
  quads.shape = {quads.rows, 1, shape.kernel_height, planes};
  quads.row_start.push_back(0);
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    std::vector<Quad> of_row(static_cast<size_t>(quads.columns), Quad{});
    std::vector<bool> kept(of_row.size(), false);
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      if (weight.value[i] == 0) continue;
      const int64_t channel = weight.column[i] / taps, tap = weight.column[i] % taps;
      const int64_t byte = tap % shape.kernel_width * kColours + channel;
      const int64_t kernel_row = tap / shape.kernel_width, plane = byte / kQuad;
      const bool joined = JoinsLastBytes(shape.kernel_width) && plane == planes - 1;
      const size_t column = static_cast<size_t>((joined ? kernel_row / kQuad : kernel_row) * planes + plane);
      of_row[column].weight[joined ? kernel_row % kQuad : byte % kQuad] = weight.value[i];
      kept[column] = true;
    }
    for (size_t column = 0; column < of_row.size(); ++column) {
      if (!kept[column]) continue;
      quads.column.push_back(static_cast<uint32_t>(column));
      quads.value.push_back(of_row[column]);
    }
    quads.row_start.push_back(static_cast<uint32_t>(quads.value.size()));
  }
  return quads;
}

}  // namespace gossamer
