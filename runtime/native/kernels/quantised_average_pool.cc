#include "kernels/quantised_average_pool.h"

#include <algorithm>
#include <vector>

#include "kernels/lane_sums.h"

namespace gossamer {
namespace {

// The kernel's positions whose pixel is one of `size` for an output that begins at `first`.
Range Inside(int64_t first, int64_t dilation, int64_t kernel, int64_t size) {
  const int64_t begin = first >= 0 ? 0 : (-first + dilation - 1) / dilation;
  const int64_t end = first >= size ? 0 : (size - 1 - first) / dilation + 1;
  return {std::min(begin, kernel), std::clamp<int64_t>(end, std::min(begin, kernel), kernel)};
}

// Lanes side by side. Rows of a window as wide as the panel's are one run.
struct Run {
  int64_t first;
  int64_t count;
};

// The window of an output: where its lanes are in those of any channels, and how many pixels of the image it has.
struct PoolWindow {
  std::vector<Run> runs;
  int64_t pixels = 0;

  void MoveTo(const AveragePoolPlan& plan, int64_t y, int64_t x) {
    const ConvolutionShape& shape = plan.shape;
    const PanelLayout& from = plan.input;
    const int64_t first_row = y * shape.stride_height - shape.pad_top;
    const int64_t first_column = x * shape.stride_width - shape.pad_left;
    const Range rows = Inside(first_row, shape.dilation_height, shape.kernel_height, from.height);
    const Range columns = Inside(first_column, shape.dilation_width, shape.kernel_width, from.width);
    const bool together = from.segments == 1 && shape.dilation_width == 1;
    const int64_t step = together ? std::max<int64_t>(columns.last - columns.first, 1) : 1;
    runs.clear();
    for (int64_t kh = rows.first; kh < rows.last; ++kh) {
      const int64_t row = first_row + kh * shape.dilation_height;
      for (int64_t kw = columns.first; kw < columns.last; kw += step) {
        const int64_t column = first_column + kw * shape.dilation_width;
        const int64_t segment = from.segments == 1 ? 0 : column / from.tile_columns;
        const int64_t place = plan.places[static_cast<size_t>(row * from.segments + segment)] + column -
                              segment * from.tile_columns;
        if (!runs.empty() && place == runs.back().first + runs.back().count) {
          runs.back().count += step;
        } else {
          runs.push_back({place, step});
        }
      }
    }
    pixels = (rows.last - rows.first) * (columns.last - columns.first);
  }
};

// Lanes of channels `quads` of one image.
void PoolLanes(const AveragePoolPlan& plan, Range quads, const int32_t* panel, int32_t* output, PoolWindow* window) {
  const Quantisation one{1.0f, plan.output_zero_point};
  for (int64_t y = 0; y < plan.output.height; ++y) {
    for (int64_t x = 0; x < plan.output.width; ++x) {
      window->MoveTo(plan, y, x);
      const int64_t counted = plan.counts_padding ? plan.shape.taps() : window->pixels;
      const float scale = plan.scale / static_cast<float>(std::max<int64_t>(counted, 1));
      const int32_t nothing = static_cast<int32_t>(window->pixels) * plan.input_zero_point;
      int32_t* const lanes =
          output + plan.output.tile_of(y, x) * plan.quads() * plan.output.pitch + plan.output.offset_in_tile(y, x);
      for (int64_t quad = quads.first; quad < quads.last; ++quad) {
        LaneSums sums;
        for (const Run& run : window->runs) {
          sums.Add(reinterpret_cast<const PanelByte*>(panel + quad * plan.input.pitch + run.first), run.count);
        }
        PanelByte* const bytes = reinterpret_cast<PanelByte*>(lanes + quad * plan.output.pitch);
        for (int64_t c = 0; c < kQuad; ++c) {
          bytes[c] = PanelByteOf(Quantised(one, static_cast<float>(sums.of[c] - nothing) * scale));
        }
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
  PoolWindow window;
  while (first < last) {
    const int64_t image = first / plan.quads(), quad = first % plan.quads();
    const int64_t end = std::min(plan.quads(), quad + last - first);
    PoolLanes(plan, {quad, end}, input + image * strides.input, output + image * strides.output, &window);
    first += end - quad;
  }
}

}  // namespace gossamer
