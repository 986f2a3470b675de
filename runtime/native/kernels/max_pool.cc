#include "kernels/max_pool.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/max_pool.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// to[x] = max of from[x] and, if `more`, to[x]. `from` holds `count` floats; a whole vector is stored for the last ones
// too, with nothing above -inf behind them: a vector that was stored in part would have to reach memory before the columns
// below could be read.
HWY_INLINE void MaxInto(const float* HWY_RESTRICT from, bool more, float* HWY_RESTRICT to, int64_t count) {
  const FloatTag d;
  const auto store = [&](FloatVector v, int64_t i) HWY_ATTR {
    hn::StoreU(more ? Larger(v, hn::LoadU(d, to + i)) : v, d, to + i);
  };
  ForEachVector(
      count, [&](int64_t i) HWY_ATTR { store(hn::LoadU(d, from + i), i); },
      [&](int64_t i, size_t rest) HWY_ATTR {
        const FloatVector lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
        store(hn::IfThenElse(hn::FirstN(d, rest), hn::LoadN(d, from + i, rest), lowest), i);
      });
}

// The maximum over the kernel's rows, of one image row and channel, into `row`, whose first pixel is the image's.
void MaxOfRows(const MaxPoolPlan& plan, const float* image, int64_t channel, int64_t first_row, float* row) {
  const ConvolutionShape& shape = plan.shape;
  const float* const of_channel = image + channel * plan.input.pitch;
  for (int64_t segment = 0; segment < plan.input.segments; ++segment) {
    const int64_t column = segment * plan.input.tile_columns;
    const int64_t columns = std::min(plan.input.tile_columns, plan.input.width - column);
    bool more = false;
    for (int64_t k = 0; k < shape.kernel_height; ++k) {
      const int64_t y = first_row + k * shape.dilation_height;
      if (y < 0) continue;
      if (y >= plan.input.height) break;
      MaxInto(of_channel + plan.places[static_cast<size_t>(y * plan.input.segments + segment)], more, row + column,
              columns);
      more = true;
    }
    if (!more) std::fill(row + column, row + column + columns, -std::numeric_limits<float>::infinity());
  }
}

// output[x] = max over the kernel's columns of row[x * stride + k * dilation]. The last vector of a row is computed like
// the others and stored in part: one by one, and with a guess at every comparison, a row of 28 took three times as long.
void MaxOfColumns(const ConvolutionShape& shape, const float* HWY_RESTRICT row, float* HWY_RESTRICT output,
                  int64_t count) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(kLanes);
  const auto most_of = [&](const auto& column) HWY_ATTR {
    FloatVector most = column(0);
    for (int64_t k = 1; k < shape.kernel_width; ++k) most = Larger(column(k), most);
    return most;
  };
  const auto store = [&](FloatVector most, int64_t x) HWY_ATTR {
    if (x + lanes <= count) {
      hn::StoreU(most, d, output + x);
    } else {
      hn::StoreN(most, d, output + x, static_cast<size_t>(count - x));
    }
  };
#if HWY_TARGET != HWY_SCALAR
  if (shape.stride_width == 2) {
    for (int64_t x = 0; x < count; x += lanes) {
      store(most_of([&](int64_t k) HWY_ATTR {
              const float* from = row + 2 * x + k * shape.dilation_width;
              return hn::ConcatEven(d, hn::LoadU(d, from + lanes), hn::LoadU(d, from));
            }),
            x);
    }
    return;
  }
#endif
  if (shape.stride_width == 1) {
    for (int64_t x = 0; x < count; x += lanes) {
      store(most_of([&](int64_t k) HWY_ATTR { return hn::LoadU(d, row + x + k * shape.dilation_width); }), x);
    }
    return;
  }
  for (int64_t x = 0; x < count; ++x) {
    const float* from = row + x * shape.stride_width;
    float most = from[0];
    for (int64_t k = 1; k < shape.kernel_width; ++k) {
      const float v = from[k * shape.dilation_width];
      if (v > most || v != v) most = v;
    }
    output[x] = most;
  }
}

// The tiles of one band of output rows.
void PoolBand(const MaxPoolPlan& plan, int64_t band, const float* image, float* output, int64_t first_channel,
              int64_t last_channel, float* scratch) {
  const ConvolutionShape& shape = plan.shape;
  const int64_t first_tile = band * plan.output.segments;
  const int64_t rows = plan.output.tile(first_tile).rows;
  for (int64_t channel = first_channel; channel < last_channel; ++channel) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t y = band * plan.output.tile_rows + r;
      MaxOfRows(plan, image, channel, y * shape.stride_height - shape.pad_top, scratch + shape.pad_left);
      for (int64_t segment = 0; segment < plan.output.segments; ++segment) {
        const Tile tile = plan.output.tile(first_tile + segment);
        float* to = output + ((first_tile + segment) * shape.output_channels + channel) * plan.output.pitch;
        MaxOfColumns(shape, scratch + tile.column * shape.stride_width, to + r * tile.columns, tile.columns);
        // What lies behind the last pixel takes part in the arithmetic of other ops.
        if (r + 1 == rows) std::fill(to + tile.pixels(), to + plan.output.pitch, 0.0f);
      }
    }
  }
}

void PoolItems(const MaxPoolPlan& plan, const float* input, float* output, const ImageStrides& strides, int64_t first,
               int64_t last, float* scratch) {
  std::fill(scratch, scratch + plan.row_floats, -std::numeric_limits<float>::infinity());
  const int64_t channels = plan.shape.output_channels;
  for (int64_t item = first; item < last; ++item) {
    const int64_t part = item % plan.parts;
    const int64_t band = item / plan.parts % plan.output.bands;
    const int64_t image = item / plan.parts / plan.output.bands;
    const Range some = ShareOf(channels, plan.parts, part);
    PoolBand(plan, band, input + image * strides.input, output + image * strides.output, some.first, some.last, scratch);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(PoolItems);

Status MakeMaxPoolPlan(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads, MaxPoolPlan* plan) {
  // Scratch of one thread at most, in floats: 64 MiB, a row of 2^24 pixels.
  constexpr int64_t kMaximumRowFloats = int64_t{1} << 24;
  *plan = MaxPoolPlan();
  plan->shape = shape;
  plan->input = MakePanelLayout(height, width, threads);
  plan->output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  plan->parts = std::clamp<int64_t>(threads, 1, shape.output_channels);
  // A last vector, at a stride of 2 two of them, is read whole from where its first window's column is. Less is written.
  constexpr int64_t kSlackFloats = 32;
  plan->row_floats = shape.pad_left + width + shape.pad_right + kSlackFloats;
  if (plan->row_floats > kMaximumRowFloats) return Status::Problem("max pooling: a padded row of more than 64 MiB");
  const PanelLayout& from = plan->input;
  plan->places.reserve(static_cast<size_t>(height * from.segments));
  for (int64_t row = 0; row < height; ++row) {
    for (int64_t segment = 0; segment < from.segments; ++segment) {
      const int64_t column = segment * from.tile_columns;
      plan->places.push_back(from.tile_of(row, column) * shape.input_channels * from.pitch +
                             from.offset_in_tile(row, column));
    }
  }
  return Status::Ok();
}

void RunMaxPool(const MaxPoolPlan& plan, const float* input, float* output, const ImageStrides& strides, int64_t first,
                int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(PoolItems)(plan, input, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
