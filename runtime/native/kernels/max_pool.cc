#include "kernels/max_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/max_pool.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/quantised_panel.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What a lane of a panel is compared as: a float, or the bytes of four channels.
struct FloatLanes {
  using Lane = float;
  static constexpr Lane kLowest = -std::numeric_limits<float>::infinity();

  template <class V>
  HWY_INLINE static V LargerOf(V a, V b) {
    return Larger(a, b);
  }
  static Lane LargerOne(Lane a, Lane b) { return a > b || a != a ? a : b; }
};

struct ByteLanes {
  using Lane = int32_t;
  // Four times the value 0.
  static constexpr Lane kLowest = kPanelOffset == 0 ? 0 : static_cast<int32_t>(0x80808080u);

  template <class V>
  HWY_INLINE static V LargerOf(V a, V b) {
    const hn::DFromV<V> d;
#if HWY_TARGET == HWY_SCALAR
    return hn::Set(d, LargerOne(hn::GetLane(a), hn::GetLane(b)));
#else
    const hn::Repartition<PanelByte, decltype(d)> bytes;
    return hn::BitCast(d, hn::Max(hn::BitCast(bytes, a), hn::BitCast(bytes, b)));
#endif
  }
  static Lane LargerOne(Lane a, Lane b) {
    PanelByte of_a[kQuad], of_b[kQuad];
    std::memcpy(of_a, &a, sizeof(a));
    std::memcpy(of_b, &b, sizeof(b));
    for (int64_t c = 0; c < kQuad; ++c) of_a[c] = std::max(of_a[c], of_b[c]);
    std::memcpy(&a, of_a, sizeof(a));
    return a;
  }
};

// to[x] = max of from[x] and, if `more`, to[x]. `from` holds `count` lanes; a whole vector is stored for the last ones
// too, with nothing above the lowest behind them: a vector that was stored in part would have to reach memory before the
// columns below could be read.
template <class Lanes, class Lane = typename Lanes::Lane>
HWY_INLINE void MaxInto(const Lane* HWY_RESTRICT from, bool more, Lane* HWY_RESTRICT to, int64_t count) {
  const hn::CappedTag<Lane, 16> d;
  using Vector = hn::Vec<decltype(d)>;
  const auto store = [&](Vector v, int64_t i) HWY_ATTR {
    hn::StoreU(more ? Lanes::LargerOf(v, hn::LoadU(d, to + i)) : v, d, to + i);
  };
  ForEachVector(
      count, [&](int64_t i) HWY_ATTR { store(hn::LoadU(d, from + i), i); },
      [&](int64_t i, size_t rest) HWY_ATTR {
        const Vector lowest = hn::Set(d, Lanes::kLowest);
        store(hn::IfThenElse(hn::FirstN(d, rest), hn::LoadN(d, from + i, rest), lowest), i);
      });
}

// The maximum over the kernel's rows, of one image row and channel, into `row`, whose first pixel is the image's.
template <class Lanes, class Lane = typename Lanes::Lane>
void MaxOfRows(const MaxPoolPlan& plan, const Lane* image, int64_t channel, int64_t first_row, Lane* row) {
  const ConvolutionShape& shape = plan.shape;
  const Lane* const of_channel = image + channel * plan.input.pitch;
  for (int64_t segment = 0; segment < plan.input.segments; ++segment) {
    const int64_t column = segment * plan.input.tile_columns;
    const int64_t columns = std::min(plan.input.tile_columns, plan.input.width - column);
    bool more = false;
    for (int64_t k = 0; k < shape.kernel_height; ++k) {
      const int64_t y = first_row + k * shape.dilation_height;
      if (y < 0) continue;
      if (y >= plan.input.height) break;
      MaxInto<Lanes>(of_channel + plan.places[static_cast<size_t>(y * plan.input.segments + segment)], more,
                     row + column, columns);
      more = true;
    }
    if (!more) std::fill(row + column, row + column + columns, Lanes::kLowest);
  }
}

// output[x] = max over the kernel's columns of row[x * stride + k * dilation]. The last vector of a row is computed like
// the others and stored in part: one by one, and with a guess at every comparison, a row of 28 took three times as long.
template <class Lanes, class Lane = typename Lanes::Lane>
void MaxOfColumns(const ConvolutionShape& shape, const Lane* HWY_RESTRICT row, Lane* HWY_RESTRICT output,
                  int64_t count) {
  const hn::CappedTag<Lane, 16> d;
  using Vector = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(kLanes);
  const auto most_of = [&](const auto& column) HWY_ATTR {
    Vector most = column(0);
    for (int64_t k = 1; k < shape.kernel_width; ++k) most = Lanes::LargerOf(column(k), most);
    return most;
  };
  const auto store = [&](Vector most, int64_t x) HWY_ATTR {
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
              const Lane* from = row + 2 * x + k * shape.dilation_width;
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
    const Lane* from = row + x * shape.stride_width;
    Lane most = from[0];
    for (int64_t k = 1; k < shape.kernel_width; ++k) most = Lanes::LargerOne(from[k * shape.dilation_width], most);
    output[x] = most;
  }
}

// The tiles of one band of output rows.
template <class Lanes, class Lane = typename Lanes::Lane>
void PoolBand(const MaxPoolPlan& plan, int64_t band, const Lane* image, Lane* output, int64_t first_channel,
              int64_t last_channel, Lane* scratch) {
  const ConvolutionShape& shape = plan.shape;
  const int64_t first_tile = band * plan.output.segments;
  const int64_t rows = plan.output.tile(first_tile).rows;
  for (int64_t channel = first_channel; channel < last_channel; ++channel) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t y = band * plan.output.tile_rows + r;
      MaxOfRows<Lanes>(plan, image, channel, y * shape.stride_height - shape.pad_top, scratch + shape.pad_left);
      for (int64_t segment = 0; segment < plan.output.segments; ++segment) {
        const Tile tile = plan.output.tile(first_tile + segment);
        Lane* to = output + ((first_tile + segment) * shape.output_channels + channel) * plan.output.pitch;
        MaxOfColumns<Lanes>(shape, scratch + tile.column * shape.stride_width, to + r * tile.columns, tile.columns);
        // What lies behind the last pixel takes part in the arithmetic of other ops.
        if (r + 1 == rows) std::fill(to + tile.pixels(), to + plan.output.pitch, Lane{});
      }
    }
  }
}

template <class Lanes, class Lane = typename Lanes::Lane>
void PoolItems(const MaxPoolPlan& plan, const Lane* input, Lane* output, const ImageStrides& strides, int64_t first,
               int64_t last, Lane* scratch) {
  std::fill(scratch, scratch + plan.row_floats, Lanes::kLowest);
  const int64_t channels = plan.shape.output_channels;
  for (int64_t item = first; item < last; ++item) {
    const int64_t part = item % plan.parts;
    const int64_t band = item / plan.parts % plan.output.bands;
    const int64_t image = item / plan.parts / plan.output.bands;
    const Range some = ShareOf(channels, plan.parts, part);
    PoolBand<Lanes>(plan, band, input + image * strides.input, output + image * strides.output, some.first, some.last,
                    scratch);
  }
}

void PoolFloats(const MaxPoolPlan& plan, const float* input, float* output, const ImageStrides& strides, int64_t first,
                int64_t last, float* scratch) {
  PoolItems<FloatLanes>(plan, input, output, strides, first, last, scratch);
}

void PoolBytes(const MaxPoolPlan& plan, const int32_t* input, int32_t* output, const ImageStrides& strides,
               int64_t first, int64_t last, int32_t* scratch) {
  PoolItems<ByteLanes>(plan, input, output, strides, first, last, scratch);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(PoolFloats);
HWY_EXPORT(PoolBytes);

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
  plan->places = SegmentPlaces(plan->input, shape.input_channels);
  return Status::Ok();
}

void RunMaxPool(const MaxPoolPlan& plan, const float* input, float* output, const ImageStrides& strides, int64_t first,
                int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(PoolFloats)(plan, input, output, strides, first, last, scratch);
}

void RunQuantisedMaxPool(const MaxPoolPlan& plan, const int32_t* input, int32_t* output, const ImageStrides& strides,
                         int64_t first, int64_t last, int32_t* scratch) {
  HWY_DYNAMIC_DISPATCH(PoolBytes)(plan, input, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
