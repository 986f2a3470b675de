#include "kernels/quantised_average_pool.h"

#include <algorithm>

#include "kernels/lane_sums.h"

namespace gossamer {
namespace {

// The kernel's positions whose pixel is one of `size` for an output that begins at `first`.
Range Inside(int64_t first, int64_t dilation, int64_t kernel, int64_t size) {
  const int64_t begin = first >= 0 ? 0 : (-first + dilation - 1) / dilation;
  const int64_t end = first >= size ? 0 : (size - 1 - first) / dilation + 1;
  return {std::min(begin, kernel), std::clamp<int64_t>(end, std::min(begin, kernel), kernel)};
}

// One lane of channels, of one image.
void PoolLane(const AveragePoolPlan& plan, const PanelByte* panel, PanelByte* output) {
  const ConvolutionShape& shape = plan.shape;
  const PanelLayout& from = plan.input;
  const Quantisation one{1.0f, plan.output_zero_point};
  for (int64_t y = 0; y < plan.output.height; ++y) {
    const int64_t first_row = y * shape.stride_height - shape.pad_top;
    const Range rows = Inside(first_row, shape.dilation_height, shape.kernel_height, from.height);
    for (int64_t x = 0; x < plan.output.width; ++x) {
      const int64_t first_column = x * shape.stride_width - shape.pad_left;
      const Range columns = Inside(first_column, shape.dilation_width, shape.kernel_width, from.width);
      LaneSums sums;
      for (int64_t kh = rows.first; kh < rows.last; ++kh) {
        const int64_t row = first_row + kh * shape.dilation_height;
        const bool together = from.segments == 1 && shape.dilation_width == 1;
        const int64_t step = together ? std::max<int64_t>(columns.last - columns.first, 1) : 1;
        for (int64_t kw = columns.first; kw < columns.last; kw += step) {
          const int64_t column = first_column + kw * shape.dilation_width;
          const int64_t segment = from.segments == 1 ? 0 : column / from.tile_columns;
          sums.Add(panel + kQuad * (plan.places[static_cast<size_t>(row * from.segments + segment)] + column -
                                    segment * from.tile_columns),
                   step);
        }
      }
      const int64_t inside = (rows.last - rows.first) * (columns.last - columns.first);
      const int64_t counted = plan.counts_padding ? shape.taps() : inside;
      const float scale = plan.scale / static_cast<float>(std::max<int64_t>(counted, 1));
      const int64_t lane = plan.output.tile_of(y, x) * plan.quads() * plan.output.pitch + plan.output.offset_in_tile(y, x);
      for (int64_t c = 0; c < kQuad; ++c) {
        const float sum = static_cast<float>(sums.of[c] - static_cast<int32_t>(inside) * plan.input_zero_point);
        output[kQuad * lane + c] = PanelByteOf(Quantised(one, sum * scale));
      }
    }
  }
}

}  // namespace

AveragePoolPlan MakeAveragePoolPlan(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads) {
  AveragePoolPlan plan;
  plan.shape = shape;
  plan.input = MakePanelLayout(height, width, threads);
  plan.output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  plan.places = SegmentPlaces(plan.input, plan.quads());
  return plan;
}

void RunAveragePool(const AveragePoolPlan& plan, const int32_t* input, int32_t* output, const ImageStrides& strides,
                    int64_t first, int64_t last) {
  for (int64_t item = first; item < last; ++item) {
    const int64_t image = item / plan.quads(), quad = item % plan.quads();
    PoolLane(plan, reinterpret_cast<const PanelByte*>(input + image * strides.input + quad * plan.input.pitch),
             reinterpret_cast<PanelByte*>(output + image * strides.output + quad * plan.output.pitch));
  }
}

}  // namespace gossamer
