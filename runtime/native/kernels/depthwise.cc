#include "kernels/depthwise.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/depthwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/activation-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/neighbor-inl.h"
#include "kernels/staging.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kVectorPixels = static_cast<int64_t>(kLanes);

// Rows outside the image.
alignas(64) constexpr float kZeroRow[kTilePixels + 16] = {};

// count pixels, at most a vector of them, and zeros after.
HWY_INLINE FloatVector LoadPixels(const float* HWY_RESTRICT from, int64_t count) {
  const FloatTag d;
  if (HWY_LIKELY(count >= kVectorPixels)) return hn::LoadU(d, from);
  return count <= 0 ? hn::Zero(d) : hn::LoadN(d, from, static_cast<size_t>(count));
}

// Stores the rows of one channel of one output tile, from the first to the last.
struct ChannelStore {
  Epilogue epilogue;
  float* output;
  const float* residual;
  int64_t columns;
  int64_t pitch;

  // Whether StoreWhole will do for vectors that lie within their row.
  bool plain() const { return residual == nullptr && epilogue.is_clamp(); }

  HWY_INLINE void StoreWhole(int64_t row, int64_t column, FloatVector sum) const {
    const FloatTag d;
    sum = Clamped(sum, hn::Set(d, epilogue.lower), hn::Set(d, epilogue.upper));
    hn::StoreU(sum, d, output + row * columns + column);
  }

  HWY_INLINE void Store(int64_t row, int64_t column, FloatVector sum) const {
    const FloatTag d;
    const int64_t pixel = row * columns + column;
    int64_t count = HWY_MIN(columns - column, kVectorPixels);
    if (residual != nullptr) {
      sum = hn::Add(sum, LoadPixels(residual + pixel, count));
    } else {
      // What is too much lies in the next row, which comes later, or behind the last one. With a residual it could be
      // one that is not read yet.
      count = HWY_MIN(pitch - pixel, kVectorPixels);
    }
    sum = Clamped(sum, hn::Set(d, epilogue.lower), hn::Set(d, epilogue.upper));
    if (HWY_UNLIKELY(!epilogue.is_clamp())) sum = Activate(d, sum, epilogue);
    if (HWY_LIKELY(count >= kVectorPixels)) {
      hn::StoreU(sum, d, output + pixel);
    } else {
      hn::StoreN(sum, d, output + pixel, static_cast<size_t>(count));
    }
  }
};

// output[x] = left[x - 1] + middle[x] + right[x + 1], each summed over the kernel's rows where its input lies: three loads
// for nine multiply-adds, and two shifts. The middle is summed on top of the left, which began with the bias.
struct DirectStride1 {
  // Of a vector of pixels.
  struct Sums {
    FloatVector left;
    FloatVector left_and_middle;
    FloatVector right;
  };

  FloatVector weight[9];
  FloatVector bias;

  // `before`: left of the pixels before, the bias at the beginning of a row.
  template <class Load>
  HWY_INLINE Sums Sum(const float* const (&rows)[3], FloatVector before, const Load& load) const {
    const FloatVector pixels[3] = {load(rows[0]), load(rows[1]), load(rows[2])};
    Sums sums;
    sums.left = bias;
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 3; ++k) sums.left = hn::MulAdd(weight[3 * k], pixels[k], sums.left);
    sums.left_and_middle = LeftNeighbors(before, sums.left);
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 3; ++k) {
      sums.left_and_middle = hn::MulAdd(weight[3 * k + 1], pixels[k], sums.left_and_middle);
    }
    sums.right = hn::Mul(weight[2], pixels[0]);
    GOSSAMER_UNROLL
    for (size_t k = 1; k < 3; ++k) sums.right = hn::MulAdd(weight[3 * k + 2], pixels[k], sums.right);
    return sums;
  }

  HWY_INLINE static FloatVector Join(const Sums& here, FloatVector next_right) {
    return hn::Add(here.left_and_middle, RightNeighbors(here.right, next_right));
  }

  // Any row: what lies behind it is not read, and not all of a vector need be stored.
  HWY_INLINE void Row(const float* const (&rows)[3], int64_t width, int64_t row, const ChannelStore& store) const {
    const FloatTag d;
    const auto sum = [&](int64_t column, FloatVector before) HWY_ATTR {
      return Sum(rows, before, [=](const float* from) HWY_ATTR { return LoadPixels(from + column, width - column); });
    };
    Sums here = sum(0, bias);
    for (int64_t column = 0; column < store.columns; column += kVectorPixels) {
      const int64_t next_column = column + kVectorPixels;
      const Sums next = next_column < width || next_column < store.columns
                            ? sum(next_column, here.left)
                            : Sums{hn::Zero(d), hn::Zero(d), hn::Zero(d)};
      store.Store(row, column, Join(here, next.right));
      here = next;
    }
  }

  // The same without asking at each vector where the row ends, which takes as long as the sums themselves where a vector
  // is 4 pixels. For a plain store as wide as the input, and where the memory behind a row may be read.
  HWY_INLINE void PlainRow(const float* const (&rows)[3], int64_t width, int64_t row, const ChannelStore& store) const {
    const FloatTag d;
    const auto whole = [&](int64_t column, FloatVector before) HWY_ATTR {
      return Sum(rows, before, [=](const float* from) HWY_ATTR { return hn::LoadU(d, from + column); });
    };
    const int64_t last = (width - 1) / kVectorPixels * kVectorPixels;
    const auto keep = hn::FirstN(d, static_cast<size_t>(width - last));
    const auto end = [&](FloatVector before) HWY_ATTR {
      return Sum(rows, before,
                 [=](const float* from) HWY_ATTR { return hn::IfThenElseZero(keep, hn::LoadU(d, from + last)); });
    };
    Sums here = last == 0 ? end(bias) : whole(0, bias);
    int64_t column = 0;
    // Two at once: otherwise a third of the instructions moves `next` to `here`.
    for (; column + 2 * kVectorPixels < last; column += 2 * kVectorPixels) {
      const Sums next = whole(column + kVectorPixels, here.left);
      store.StoreWhole(row, column, Join(here, next.right));
      here = whole(column + 2 * kVectorPixels, next.left);
      store.StoreWhole(row, column + kVectorPixels, Join(next, here.right));
    }
    if (column + kVectorPixels < last) {
      const Sums next = whole(column + kVectorPixels, here.left);
      store.StoreWhole(row, column, Join(here, next.right));
      here = next;
      column += kVectorPixels;
    }
    if (last != 0) {
      const Sums next = end(here.left);
      store.StoreWhole(row, column, Join(here, next.right));
      here = next;
    }
    store.Store(row, last, Join(here, hn::Zero(d)));
  }
};

// Output pixel x reads columns 2 x - 1, 2 x and 2 x + 1: an odd one of the pair before, then its own pair.
struct DirectStride2 {
  FloatVector weight[9];
  FloatVector bias;

  // Even and odd pixels of two vectors of a row.
  struct Pairs {
    FloatVector even;
    FloatVector odd;
  };

  HWY_INLINE static Pairs Split(FloatVector low, FloatVector high) {
#if HWY_TARGET == HWY_SCALAR
    return {low, high};
#else
    const FloatTag d;
    return {hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low)};
#endif
  }

  HWY_INLINE static Pairs LoadPairs(const float* from) {
    const FloatTag d;
#if HWY_ARCH_ARM_A64
    Pairs pairs;  // one load that takes them apart, where others need two and two shuffles
    hn::LoadInterleaved2(d, from, pairs.even, pairs.odd);
    return pairs;
#else
    return Split(hn::LoadU(d, from), hn::LoadU(d, from + kVectorPixels));
#endif
  }

  // `before`: the sums over the left column of the pixels before, the bias at the beginning of a row.
  template <class Load>
  HWY_INLINE FloatVector Sum(const float* const (&rows)[3], FloatVector* before, const Load& load) const {
    const Pairs pairs[3] = {load(rows[0]), load(rows[1]), load(rows[2])};
    FloatVector left = bias;
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 3; ++k) left = hn::MulAdd(weight[3 * k], pairs[k].odd, left);
    FloatVector sum = LeftNeighbors(*before, left);
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 3; ++k) {
      sum = hn::MulAdd(weight[3 * k + 1], pairs[k].even, sum);
      sum = hn::MulAdd(weight[3 * k + 2], pairs[k].odd, sum);
    }
    *before = left;
    return sum;
  }

  HWY_INLINE void Rest(const float* const (&rows)[3], int64_t width, int64_t row, const ChannelStore& store,
                       int64_t column, FloatVector before) const {
    for (; column < store.columns; column += kVectorPixels) {
      const int64_t rest = width - 2 * column;
      const auto load = [=](const float* from) HWY_ATTR {
        const float* const pixels = from + 2 * column;
        return Split(LoadPixels(pixels, rest), LoadPixels(pixels + kVectorPixels, rest - kVectorPixels));
      };
      store.Store(row, column, Sum(rows, &before, load));
    }
  }

  HWY_INLINE void Row(const float* const (&rows)[3], int64_t width, int64_t row, const ChannelStore& store) const {
    Rest(rows, width, row, store, 0, bias);
  }

  HWY_INLINE void PlainRow(const float* const (&rows)[3], int64_t width, int64_t row, const ChannelStore& store) const {
    FloatVector before = bias;
    int64_t column = 0;
    for (; 2 * (column + kVectorPixels) <= width; column += kVectorPixels) {
      const auto load = [=](const float* from) HWY_ATTR { return LoadPairs(from + 2 * column); };
      store.StoreWhole(row, column, Sum(rows, &before, load));
    }
    Rest(rows, width, row, store, column, before);
  }
};

template <class Kernel>
HWY_NOINLINE void DirectChannels(const DepthwisePlan& plan, int64_t index, const float* image, const float* residual,
                                 float* output, int64_t first_channel, int64_t last_channel) {
  const FloatTag d;
  const ConvolutionShape& shape = plan.shape;
  const Tile tile = plan.output.tile(index);
  const int64_t multiplier = shape.output_channels / shape.input_channels;
  const int64_t first_row = tile.row * shape.stride_height - shape.pad_top;
  // Where the tile's input rows lie, of channel 0; -1: outside the image.
  int64_t places[3 * kTilePixels];
  const int64_t input_rows = (tile.rows - 1) * shape.stride_height + 3;
  for (int64_t r = 0; r < input_rows; ++r) {
    const int64_t row = first_row + r;
    places[r] = row < 0 || row >= plan.input.height
                    ? -1
                    : plan.input.tile_of(row, 0) * shape.input_channels * plan.input.pitch +
                          plan.input.offset_in_tile(row, 0);
  }
  const bool may_be_plain = (plan.input.width - 1) / shape.stride_width + 1 == tile.columns;
  for (int64_t channel = first_channel; channel < last_channel; ++channel) {
    Kernel kernel;
    GOSSAMER_UNROLL
    for (size_t k = 0; k < 9; ++k) kernel.weight[k] = hn::Set(d, plan.weights[static_cast<size_t>(channel) * 9 + k]);
    kernel.bias = hn::Set(d, plan.bias[static_cast<size_t>(channel)]);
    const int64_t offset = channel * plan.output.pitch;
    const ChannelStore store{plan.epilogue, output + offset, residual ? residual + offset : nullptr, tile.columns,
                             plan.output.pitch};
    const float* pixels = image + channel / multiplier * plan.input.pitch;
    // Behind the last channel the tensor may end, and small images' channels are shorter than a vector.
    const int64_t behind = (shape.input_channels - 1 - channel / multiplier) * plan.input.pitch;
    const bool plain = store.plain() && may_be_plain && behind >= kVectorPixels;
    for (int64_t row = 0; row < tile.rows; ++row) {
      const int64_t* place = places + row * shape.stride_height;
      const float* rows[3];
      for (size_t k = 0; k < 3; ++k) rows[k] = place[k] < 0 ? kZeroRow : pixels + place[k];
      if (plain) {
        kernel.PlainRow(rows, plan.input.width, row, store);
      } else {
        kernel.Row(rows, plan.input.width, row, store);
      }
    }
  }
}

// sums[i] = bias + sum over taps of weight[tap] * staged[offset[tap] + i] for kVectors vectors.
template <size_t kVectors>
HWY_NOINLINE void SumTaps(const DepthwisePlan& plan, const Range& taps, const float* HWY_RESTRICT weight, float bias,
                        const float* HWY_RESTRICT staged, float* HWY_RESTRICT sums) {
  AccumulatorRow<kVectors, 0> row;
  row.Fill(bias);
  const int64_t* HWY_RESTRICT offset = plan.tap_offsets.data();
  for (int64_t tap = taps.first; tap < taps.last; ++tap) {
    const FloatVector all = hn::Set(FloatTag(), weight[tap]);
    const float* HWY_RESTRICT from = staged + offset[tap];
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      row.full[i] = hn::MulAdd(all, hn::LoadU(FloatTag(), from + i * kLanes), row.full[i]);
    }
  }
  row.Store(sums);
}

using TapSum = void (*)(const DepthwisePlan&, const Range&, const float*, float, const float*, float*);

template <size_t... kLess>
constexpr std::array<TapSum, sizeof...(kLess)> TapSums(std::index_sequence<kLess...>) {
  return {&SumTaps<kLess + 1>...};
}

// Vectors that are summed at once: a single one waits for each of its multiply-adds.
inline constexpr size_t kAtOnce = kLanes >= 16 ? 8 : 4;

HWY_NOINLINE void StagedChannels(const DepthwisePlan& plan, int64_t index, const float* image, const float* residual,
                                 float* output, int64_t first_channel, int64_t last_channel, float* scratch) {
  static constexpr auto kSums = TapSums(std::make_index_sequence<kAtOnce>());
  const FloatTag d;
  const ConvolutionShape& shape = plan.shape;
  const TilePlan& tile = plan.tiles[static_cast<size_t>(index)];
  const int64_t multiplier = shape.output_channels / shape.input_channels;
  const int64_t lanes = (tile.rows - 1) * plan.row_floats + tile.columns;
  const int64_t vectors = (lanes + kVectorPixels - 1) / kVectorPixels;
  const int64_t most = static_cast<int64_t>(kAtOnce);
  const int64_t calls = (vectors + most - 1) / most;
  const int64_t step = (vectors + calls - 1) / calls;
  const Range taps = plan.tile_taps[static_cast<size_t>(index)];
  float* const sums = scratch + plan.stage_floats;
  int64_t staged = -1;
  for (int64_t channel = first_channel; channel < last_channel; ++channel) {
    if (channel / multiplier != staged) {
      staged = channel / multiplier;
      StageBlock(tile, image + staged * plan.input.pitch, plan.input.pitch, shape.stride_width, 1, 0, 0.0f,
                 scratch);
    }
    const float* weight = plan.weights.data() + channel * static_cast<int64_t>(plan.tap_offsets.size());
    const float bias = plan.bias[static_cast<size_t>(channel)];
    for (int64_t vector = 0; vector < vectors; vector += step) {
      const int64_t lane = vector * kVectorPixels;
      kSums[static_cast<size_t>(HWY_MIN(step, vectors - vector) - 1)](plan, taps, weight, bias, scratch + lane,
                                                                      sums + lane);
    }

    const int64_t offset = channel * plan.output.pitch;
    const ChannelStore store{plan.epilogue, output + offset, residual ? residual + offset : nullptr, tile.columns,
                             plan.output.pitch};
    for (int64_t row = 0; row < tile.rows; ++row) {
      for (int64_t column = 0; column < tile.columns; column += kVectorPixels) {
        store.Store(row, column, hn::LoadU(d, sums + row * plan.row_floats + column));
      }
    }
  }
}

void RunDepthwiseItems(const DepthwisePlan& plan, const float* input, const float* residual, float* output,
                       const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  const int64_t tiles = plan.output.tiles();
  const int64_t channels = plan.shape.output_channels;
  for (int64_t item = first; item < last; ++item) {
    const int64_t part = item % plan.parts;
    const int64_t index = item / plan.parts % tiles;
    const int64_t image = item / plan.parts / tiles;
    const auto [begin, end] = ShareOf(channels, plan.parts, part);
    const int64_t place = image * strides.output + index * channels * plan.output.pitch;
    const float* from = input + image * strides.input;
    const float* other = residual ? residual + place : nullptr;
    if (!plan.direct) {
      StagedChannels(plan, index, from, other, output + place, begin, end, scratch);
    } else if (plan.shape.stride_width == 1) {
      DirectChannels<DirectStride1>(plan, index, from, other, output + place, begin, end);
    } else {
      DirectChannels<DirectStride2>(plan, index, from, other, output + place, begin, end);
    }
    if (other == nullptr) continue;
    // Stored exactly: what lies between the pixels and the next channel is still to be made harmless.
    const int64_t pixels = plan.output.tile(index).pixels();
    for (int64_t channel = begin; channel < end; ++channel) {
      float* row = output + place + channel * plan.output.pitch;
      for (int64_t pixel = pixels; pixel < plan.output.pitch; ++pixel) row[pixel] = 0.0f;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {
namespace {

// Scratch of one thread at most, in floats: 4 MiB.
constexpr int64_t kMaximumStageFloats = int64_t{1} << 20;
// Weights at most, zeros included.
constexpr int64_t kMaximumWeights = int64_t{1} << 24;
// Vectors are read and written whole.
constexpr int64_t kSlackFloats = 32;

bool IsDirect(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.dilation_height == 1 &&
         shape.dilation_width == 1 && shape.pad_left == 1 && shape.stride_height <= 2 &&
         (shape.stride_width == 1 || shape.stride_width == 2) && input.segments == 1 && output.segments == 1;
}

}  // namespace

HWY_EXPORT(RunDepthwiseItems);

Status MakeDepthwisePlan(const ConvolutionShape& shape, const SparseWeight& weight, const float* bias,
                         const Epilogue& epilogue, int64_t height, int64_t width, int64_t threads, DepthwisePlan* plan) {
  if (GoesAlongOneColumn(shape, height, width)) {
    return MakeDepthwisePlan(Turned(shape), weight, bias, epilogue, width, height, threads, plan);
  }
  *plan = DepthwisePlan();
  plan->shape = shape;
  plan->input = MakePanelLayout(height, width, threads);
  plan->output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  plan->epilogue = epilogue;
  plan->parts = std::clamp<int64_t>(threads, 1, shape.output_channels);
  plan->bias.assign(static_cast<size_t>(shape.output_channels), 0.0f);
  if (bias != nullptr) plan->bias.assign(bias, bias + shape.output_channels);
  plan->direct = IsDirect(shape, plan->input, plan->output);
  // A hostile file can declare a kernel of any size at no cost in bytes; the dense weights only follow what is checked.
  if (static_cast<double>(shape.output_channels) * static_cast<double>(shape.taps()) >
      static_cast<double>(kMaximumWeights)) {
    return Status::Problem("depthwise convolution: more than 2^24 weights");
  }
  // Of each tap of the kernel its place among those that are computed; -1: it reads only padding.
  std::vector<int64_t> place(static_cast<size_t>(shape.taps()), -1);
  if (plan->direct) {
    std::iota(place.begin(), place.end(), 0);
  } else {
    HaloStaging staging;
    if (const Status status = MakeHaloStaging(shape, plan->input, plan->output, kMaximumStageFloats, false, &staging);
        !status.ok()) {
      return status;
    }
    plan->row_floats = staging.row_floats;
    for (const HaloTap& tap : staging.taps) {
      place[static_cast<size_t>(tap.tap)] = static_cast<int64_t>(plan->tap_offsets.size());
      plan->tap_offsets.push_back(tap.offset);
    }
    plan->tile_taps = std::move(staging.of_tile);
    for (int64_t index = 0; index < plan->output.tiles(); ++index) {
      const Tile tile = plan->output.tile(index);
      TilePlan planned = {};
      planned.rows = static_cast<int32_t>(tile.rows);
      planned.columns = static_cast<int32_t>(tile.columns);
      planned.copies = std::move(staging.copies[static_cast<size_t>(index)]);
      plan->tiles.push_back(std::move(planned));
    }
    plan->stage_floats = (staging.channel_floats + kSlackFloats + 15) / 16 * 16;
    plan->sum_floats = (plan->output.tile_rows * plan->row_floats + kSlackFloats + 15) / 16 * 16;
  }
  const int64_t taps = plan->direct ? shape.taps() : static_cast<int64_t>(plan->tap_offsets.size());
  plan->weights.assign(static_cast<size_t>(shape.output_channels * taps), 0.0f);
  for (int64_t row = 0; row < shape.output_channels; ++row) {
    for (uint32_t i = weight.row_start[static_cast<size_t>(row)]; i < weight.row_start[static_cast<size_t>(row) + 1];
         ++i) {
      if (const int64_t tap = place[weight.column[i]]; tap >= 0) {
        plan->weights[static_cast<size_t>(row * taps + tap)] = weight.value[i];
      }
    }
  }
  return Status::Ok();
}

void RunDepthwise(const DepthwisePlan& plan, const float* input, const float* residual, float* output,
                  const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(RunDepthwiseItems)(plan, input, residual, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
