#include "kernels/stem.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/stem.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/activation-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Two registers of output channels for each of so many pixels, two of weights and one for the pixel fill the processor's.
#if HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr size_t kPixels = 14;
#elif HWY_TARGET == HWY_AVX2
inline constexpr size_t kPixels = 6;
#else
inline constexpr size_t kPixels = 4;
#endif
inline constexpr size_t kChannels = 2 * kLanes;

StemTraits StemTraitsHere() { return {static_cast<int64_t>(kChannels), static_cast<int64_t>(kPixels)}; }

// The parts of a thread's scratch.
struct StemScratch {
  float* inputs;    // [point][input][row_floats]
  float* zeros;     // an image row outside of the image
  float* products;  // [point][pixel][channel] of one block of channels
  float* strip;     // [4][padded_columns][channel_pitch]
  float* pooled;    // [output.width][channel_pitch]: the maxima of the rows so far
  float* seam;      // likewise: of the first pooled row, if it also looks at a row of somebody else's strip

  StemScratch(const StemPlan& plan, float* scratch) {
    const auto take = [&](int64_t floats) {
      float* const part = scratch;
      scratch += (floats + 15) / 16 * 16;
      return part;
    };
    const int64_t pooled_floats = plan.max_pool ? plan.output.width * plan.channel_pitch() : 0;
    pooled = take(pooled_floats);
    seam = take(pooled_floats);
    inputs = take(plan.points * static_cast<int64_t>(plan.inputs.size()) * plan.row_floats);
    zeros = take(plan.width + 16);
    products = take(plan.points * plan.traits.pixels * plan.traits.channels);
    strip = take(4 * plan.padded_columns * plan.channel_pitch());
  }

  // The padding at both ends of the rows stays zero from here on.
  void Clear(const StemPlan& plan) const {
    FillLanes(inputs, plan.points * static_cast<int64_t>(plan.inputs.size()) * plan.row_floats, 0.0f);
    FillLanes(zeros, plan.width, 0.0f);
  }
};


// Rows that four rows of output see -> products' inputs, one vector of columns. For the points a and -a, with b and c the
// other two magnitudes and Q(x) = (x^2 - b^2)(x^2 - c^2), the polynomials that vanish at all points but one are
// (x + a) Q(x) and (x - a) Q(x): they share their odd and, but for its sign, their even part. The last polynomial
// vanishes at all six.
HWY_INLINE void TransformRows(const FloatVector (&d)[7], FloatVector (&v)[7]) {
  constexpr float kPoint[3] = {0.5f, 1.0f, 2.0f};
  constexpr float kConstant[3] = {4.0f, 1.0f, 0.25f};
  constexpr float kSquare[3] = {-5.0f, -4.25f, -1.25f};
  const FloatTag tag;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < 3; ++i) {
    const FloatVector q0 = hn::Set(tag, kConstant[i]);
    const FloatVector q2 = hn::Set(tag, kSquare[i]);
    const FloatVector even = hn::MulAdd(q0, d[0], hn::MulAdd(q2, d[2], d[4]));
    const FloatVector odd = hn::MulAdd(q0, d[1], hn::MulAdd(q2, d[3], d[5]));
    const FloatVector a = hn::Set(tag, kPoint[i]);
    v[2 * i] = hn::MulAdd(a, even, odd);
    v[2 * i + 1] = hn::NegMulAdd(a, even, odd);
  }
  v[6] = hn::Add(hn::MulAdd(hn::Set(tag, 5.25f), hn::Sub(d[2], d[4]), d[6]), hn::Neg(d[0]));
}

// Products -> four rows of output: the values at the points times their powers, the last product to the highest.
HWY_INLINE void TransformProducts(const FloatVector (&m)[7], FloatVector (&y)[4]) {
  const FloatTag tag;
  const FloatVector half = hn::Set(tag, 0.5f), two = hn::Set(tag, 2.0f);
  const FloatVector quarter = hn::Set(tag, 0.25f), four = hn::Set(tag, 4.0f);
  const FloatVector eighth = hn::Set(tag, 0.125f), eight = hn::Set(tag, 8.0f);
  const FloatVector sum0 = hn::Add(m[0], m[1]), difference0 = hn::Sub(m[0], m[1]);
  const FloatVector sum1 = hn::Add(m[2], m[3]), difference1 = hn::Sub(m[2], m[3]);
  const FloatVector sum2 = hn::Add(m[4], m[5]), difference2 = hn::Sub(m[4], m[5]);
  y[0] = hn::Add(hn::Add(sum0, sum1), sum2);
  y[1] = hn::MulAdd(half, difference0, hn::MulAdd(two, difference2, difference1));
  y[2] = hn::MulAdd(quarter, sum0, hn::MulAdd(four, sum2, sum1));
  y[3] = hn::MulAdd(eighth, difference0, hn::MulAdd(eight, difference2, hn::Add(difference1, m[6])));
}

// The inputs of all products of a strip, padded along the columns.
HWY_NOINLINE void PrepareInputs(const StemPlan& plan, const float* HWY_RESTRICT image, int64_t strip,
                                const StemScratch& scratch) {
  const FloatTag d;
  const int64_t count = static_cast<int64_t>(plan.inputs.size());
  const int64_t pitch = plan.row_floats;
  for (int64_t input = 0; input < count; ++input) {
    const StemRow& source = plan.inputs[static_cast<size_t>(input)];
    const float* rows[7];
    for (int64_t i = 0; i < plan.points; ++i) {
      const int64_t row = plan.shape.stride_height * (4 * strip + i) + source.first_row;
      const bool inside = row >= 0 && row < plan.height;
      rows[i] = inside ? image + (source.channel * plan.height + row) * plan.width : scratch.zeros;
    }
    float* const to = scratch.inputs + input * pitch + plan.shape.pad_left;
    if (!plan.transformed) {
      for (int64_t i = 0; i < plan.points; ++i) {
        PixelCopy<1>::Copy(rows[i], 1, to + i * count * pitch, plan.width, 0, 0.0f);
      }
      continue;
    }
    const auto transform = [&](int64_t x, auto load) HWY_ATTR {
      FloatVector seen[7], made[7];
      GOSSAMER_UNROLL
      for (size_t i = 0; i < 7; ++i) seen[i] = load(rows[i] + x);
      TransformRows(seen, made);
      GOSSAMER_UNROLL
      for (size_t i = 0; i < 7; ++i) hn::StoreU(made[i], d, to + static_cast<int64_t>(i) * count * pitch + x);
    };
    ForEachVector(
        plan.width,
        [&](int64_t x) HWY_ATTR {
          transform(x, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); });
        },
        [&](int64_t x, size_t rest) HWY_ATTR {
          transform(x, [&](const float* from) HWY_ATTR { return hn::LoadN(d, from, rest); });
        });
  }
}

// One product: kPixels pixels of kChannels channels, summed over the input rows and the kernel's columns.
template <int64_t kStride>
HWY_NOINLINE void MultiplyPixels(const float* HWY_RESTRICT inputs, int64_t pitch, int64_t count, int64_t kernel_width,
                                 const float* HWY_RESTRICT weights, float* HWY_RESTRICT products) {
  const FloatTag d;
  FloatVector low[kPixels], high[kPixels];
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kPixels; ++i) low[i] = high[i] = hn::Zero(d);
  for (; count != 0; --count, inputs += pitch) {
    const float* HWY_RESTRICT pixel = inputs;
    for (int64_t column = 0; column < kernel_width; ++column, ++pixel, weights += kChannels) {
      const FloatVector weight_low = hn::LoadU(d, weights);
      const FloatVector weight_high = hn::LoadU(d, weights + kLanes);
      GOSSAMER_UNROLL
      for (size_t i = 0; i < kPixels; ++i) {
        const FloatVector value = hn::Set(d, pixel[kStride * static_cast<int64_t>(i)]);
        low[i] = hn::MulAdd(value, weight_low, low[i]);
        high[i] = hn::MulAdd(value, weight_high, high[i]);
      }
    }
  }
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kPixels; ++i) {
    hn::StoreU(low[i], d, products + i * kChannels);
    hn::StoreU(high[i], d, products + i * kChannels + kLanes);
  }
}

// Products of one block of pixels and channels -> finished sums of four rows, `row_floats` apart.
HWY_NOINLINE void FinishProducts(const StemPlan& plan, const float* HWY_RESTRICT products, const float* HWY_RESTRICT bias,
                                 float* HWY_RESTRICT to, int64_t pixel_floats, int64_t row_floats) {
  const FloatTag d;
  const FloatVector lower = hn::Set(d, plan.epilogue.lower);
  const FloatVector upper = hn::Set(d, plan.epilogue.upper);
  for (size_t i = 0; i < kPixels; ++i, to += pixel_floats) {
    for (size_t c = 0; c < kChannels; c += kLanes) {
      const float* HWY_RESTRICT from = products + i * kChannels + c;
      FloatVector y[4];
      if (plan.transformed) {
        FloatVector m[7];
        GOSSAMER_UNROLL
        for (size_t p = 0; p < 7; ++p) m[p] = hn::LoadU(d, from + p * kPixels * kChannels);
        TransformProducts(m, y);
      } else {
        GOSSAMER_UNROLL
        for (size_t p = 0; p < 4; ++p) y[p] = hn::LoadU(d, from + p * kPixels * kChannels);
      }
      const FloatVector add = hn::LoadU(d, bias + c);
      GOSSAMER_UNROLL
      for (size_t row = 0; row < 4; ++row) {
        const FloatVector sum = Clamped(hn::Add(y[row], add), lower, upper);
        hn::StoreU(sum, d, to + static_cast<int64_t>(row) * row_floats + static_cast<int64_t>(c));
      }
    }
  }
}

// Whether all pixels that enter a strip's products are below kOrdinaryStemValue in magnitude. As integers, magnitudes are ordered
// like the numbers, with infinity and NaN above them: two instructions a vector, half a percent of the strip's sums.
HWY_NOINLINE bool SeesOrdinaryPixels(const StemPlan& plan, const float* image, int64_t strip) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> bits;
  const auto magnitude = hn::Set(bits, 0x7FFFFFFF);
  auto most = hn::Zero(bits);
  const auto see = [&](FloatVector pixels) HWY_ATTR {
    most = hn::Max(most, hn::And(hn::BitCast(bits, pixels), magnitude));
  };
  const auto [above, below] = std::minmax_element(
      plan.inputs.begin(), plan.inputs.end(), [](const StemRow& a, const StemRow& b) { return a.first_row < b.first_row; });
  const int64_t row = plan.shape.stride_height * 4 * strip;
  const int64_t begin = HWY_MAX(int64_t{0}, row + above->first_row);
  const int64_t end = HWY_MIN(plan.height, row + below->first_row + plan.shape.stride_height * (plan.points - 1) + 1);
  for (int64_t channel = 0; begin < end && channel < plan.shape.input_channels; ++channel) {
    const float* HWY_RESTRICT pixels = image + (channel * plan.height + begin) * plan.width;
    ForEachVector(
        (end - begin) * plan.width, [&](int64_t i) HWY_ATTR { see(hn::LoadU(d, pixels + i)); },
        [&](int64_t i, size_t rest) HWY_ATTR { see(hn::LoadN(d, pixels + i, rest)); });
  }
  const auto limit = hn::BitCast(bits, hn::Set(d, kOrdinaryStemValue));
  return hn::AllTrue(bits, hn::Lt(most, limit));
}

// The four rows of a strip, [row][column][channel].
HWY_NOINLINE void ComputeStrip(const StemPlan& plan, const float* image, int64_t strip, const StemScratch& scratch) {
  PrepareInputs(plan, image, strip, scratch);
  const int64_t count = static_cast<int64_t>(plan.inputs.size());
  const int64_t point_weights = count * plan.shape.kernel_width * static_cast<int64_t>(kChannels);
  const int64_t block_weights = plan.transformed ? plan.points * point_weights : point_weights;
  const int64_t channels = plan.channel_pitch();
  const auto multiply = plan.shape.stride_width == 1 ? &MultiplyPixels<1> : &MultiplyPixels<2>;
  for (int64_t block = 0; block < plan.blocks; ++block) {
    const float* const weights = plan.weights.data() + block * block_weights;
    const int64_t channel = block * static_cast<int64_t>(kChannels);
    for (int64_t x = 0; x < plan.padded_columns; x += static_cast<int64_t>(kPixels)) {
      for (int64_t point = 0; point < plan.points; ++point) {
        multiply(scratch.inputs + point * count * plan.row_floats + x * plan.shape.stride_width, plan.row_floats, count,
                 plan.shape.kernel_width, weights + (plan.transformed ? point * point_weights : 0),
                 scratch.products + static_cast<size_t>(point) * kPixels * kChannels);
      }
      FinishProducts(plan, scratch.products, plan.bias.data() + channel, scratch.strip + x * channels + channel, channels,
                     plan.padded_columns * channels);
    }
  }
  if (!plan.epilogue.is_clamp()) {
    ActivateRow(plan.epilogue, scratch.strip, 4 * plan.padded_columns * channels);
  }
}

// One finished row, [column][channel], into the panel.
void StoreRow(const StemPlan& plan, const float* from, int64_t row, float* panel) {
  const PanelLayout& layout = plan.output;
  const int64_t channels = plan.shape.output_channels;
  for (int64_t segment = 0; segment < layout.segments; ++segment) {
    const int64_t column = segment * layout.tile_columns;
    const int64_t index = layout.tile_of(row, column);
    const Tile tile = layout.tile(index);
    float* const to = panel + index * channels * layout.pitch;
    Transpose(from + column * plan.channel_pitch(), plan.channel_pitch(), tile.columns, channels,
              to + layout.offset_in_tile(row, column), layout.pitch);
    if (row + 1 < tile.row + tile.rows || tile.pixels() == layout.pitch) continue;
    for (int64_t channel = 0; channel < channels; ++channel) {
      float* const end = to + channel * layout.pitch;
      for (int64_t i = tile.pixels(); i < layout.pitch; ++i) end[i] = 0.0f;
    }
  }
}

// pooled[x] = max(row[2x - 1], row[2x], row[2x + 1]), and with what pooled holds if `more`, which may be NaN. The row may
// not, unless kAnyNumbers.
template <bool kAnyNumbers>
HWY_NOINLINE void PoolRow(const StemPlan& plan, const float* HWY_RESTRICT row, bool more, float* HWY_RESTRICT pooled) {
  const FloatTag d;
  const int64_t channels = plan.channel_pitch();
  for (int64_t x = 0; x < plan.output.width; ++x, pooled += channels) {
    const float* const middle = row + 2 * x * channels;
    const float* const left = x == 0 ? middle : middle - channels;
    const float* const right = 2 * x + 1 < plan.columns ? middle + channels : middle;
    const float* const before = more ? pooled : middle;
    for (int64_t c = 0; c < channels; c += static_cast<int64_t>(kLanes)) {
      const auto most = [](FloatVector a, FloatVector b) HWY_ATTR { return kAnyNumbers ? Larger(a, b) : GreaterOr(a, b); };
      const FloatVector sides = most(hn::LoadU(d, left + c), hn::LoadU(d, right + c));
      hn::StoreU(most(most(sides, hn::LoadU(d, middle + c)), hn::LoadU(d, before + c)), d, pooled + c);
    }
  }
}

// Takes convolution row y, which must come after y - 1 unless it is the first of strip `first`; stores a pooled row when it
// is complete, or to the seam if it also looks at a row before that strip.
void TakeRow(const StemPlan& plan, const float* row, bool ordinary, int64_t y, int64_t first, const StemScratch& scratch,
             float* panel) {
  if (!plan.max_pool) {
    StoreRow(plan, row, y, panel);
    return;
  }
  const bool odd = y % 2 != 0;
  const auto pool = ordinary ? &PoolRow<false> : &PoolRow<true>;
  pool(plan, row, y > 4 * first, scratch.pooled);
  if (odd || y + 1 == plan.rows) {
    if (first > 0 && y / 2 == 2 * first) {
      std::copy_n(scratch.pooled, plan.output.width * plan.channel_pitch(), scratch.seam);
    } else {
      StoreRow(plan, scratch.pooled, y / 2, panel);
    }
  }
  if (odd) pool(plan, row, false, scratch.pooled);
}

void RunStrips(const StemPlan& plan, const float* image, float* panel, int64_t first, int64_t last, float* memory) {
  const StemScratch scratch(plan, memory);
  scratch.Clear(plan);
  const int64_t row_floats = plan.padded_columns * plan.channel_pitch();
  for (int64_t strip = first; strip < last; ++strip) {
    const bool ordinary = plan.ordinary && SeesOrdinaryPixels(plan, image, strip);
    const bool directly = !ordinary && plan.direct != nullptr;
    const StemPlan& taken = directly ? *plan.direct : plan;
    const StemScratch taken_scratch(taken, memory);  // both begin with the pooled rows
    if (directly) taken_scratch.Clear(taken);
    ComputeStrip(taken, image, strip, taken_scratch);
    for (int64_t row = 0; row < HWY_MIN(int64_t{4}, plan.rows - 4 * strip); ++row) {
      TakeRow(plan, taken_scratch.strip + row * row_floats, ordinary, 4 * strip + row, first, scratch, panel);
    }
    if (directly) scratch.Clear(plan);
  }
}

// What the rows before the seam left in their last pooled row, and those behind it in their first.
void JoinSeam(const StemPlan& plan, int64_t strip, float* before, float* after, float* panel) {
  float* const upper = StemScratch(plan, before).pooled;
  const float* const lower = StemScratch(plan, after).seam;
  const FloatTag d;
  for (int64_t i = 0; i < plan.output.width * plan.channel_pitch(); i += static_cast<int64_t>(kLanes)) {
    hn::StoreU(Larger(hn::LoadU(d, lower + i), hn::LoadU(d, upper + i)), d, upper + i);
  }
  StoreRow(plan, upper, 2 * strip, panel);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(StemTraitsHere);
HWY_EXPORT(RunStrips);
HWY_EXPORT(JoinSeam);

StemTraits CurrentStemTraits() { return HWY_DYNAMIC_DISPATCH(StemTraitsHere)(); }

void RunStem(const StemPlan& plan, const float* image, float* panel, int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(RunStrips)(plan, image, panel, first, last, scratch);
}

void RunStemSeam(const StemPlan& plan, int64_t strip, float* before, float* after, float* panel) {
  HWY_DYNAMIC_DISPATCH(JoinSeam)(plan, strip, before, after, panel);
}

}  // namespace gossamer
#endif  // HWY_ONCE
