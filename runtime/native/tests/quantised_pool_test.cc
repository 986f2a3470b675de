// Ops on quantised panels that have no weights: poolings, concatenation, resizing, and the edges of panels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/max_pool.h"
#include "kernels/quantised_average_pool.h"
#include "kernels/quantised_reshape.h"
#include "tests/guarded_lanes.h"
#include "tests/panels.h"
#include "tests/quantised_reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

ConvolutionShape Pool(int64_t channels, int64_t kernel, int64_t stride, int64_t pad) {
  ConvolutionShape shape = Square(channels, channels, kernel, stride);
  shape.pad_top = shape.pad_left = shape.pad_bottom = shape.pad_right = pad;
  return shape;
}

std::vector<uint8_t> Planar(const PanelLayout& layout, int64_t channels, GuardedLanes* panels) {
  std::vector<uint8_t> planar(static_cast<size_t>(channels * layout.height * layout.width));
  PlanarFromQuantised(layout, channels, panels->bytes(), {0, layout.tiles()}, {0, QuadsOf(channels)}, planar.data());
  return planar;
}

// Calls visit(output element, row, column) for every pixel of every window, of all channels.
template <class Visit>
void ForEachWindowPixel(const ConvolutionShape& shape, int64_t height, int64_t width, const Visit& visit) {
  const int64_t out_height = shape.output_height(height), out_width = shape.output_width(width);
  for (int64_t i = 0; i < shape.output_channels * out_height * out_width; ++i) {
    const int64_t channel = i / out_width / out_height, y = i / out_width % out_height, x = i % out_width;
    for (int64_t kh = 0; kh < shape.kernel_height; ++kh) {
      for (int64_t kw = 0; kw < shape.kernel_width; ++kw) {
        const int64_t row = y * shape.stride_height + kh * shape.dilation_height - shape.pad_top;
        const int64_t column = x * shape.stride_width + kw * shape.dilation_width - shape.pad_left;
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        visit(static_cast<size_t>(i), static_cast<size_t>((channel * height + row) * width + column));
      }
    }
  }
}

struct PoolCase {
  ConvolutionShape shape;
  int64_t height;
  int64_t width;
};

std::vector<PoolCase> PoolCases() {
  std::vector<PoolCase> cases;
  for (const int64_t size : {112, 56, 14, 7, 3}) {
    for (const int64_t channels : {3, 8}) {
      cases.push_back({Pool(channels, 2, 2, 0), size, size});
      cases.push_back({Pool(channels, 3, 2, 1), size, size + 1});
      cases.push_back({Pool(channels, 3, 1, 1), size, 2 * size});
      cases.push_back({Pool(channels, 3, 3, 2), size, size});
    }
  }
  cases.push_back({Pool(5, 7, 1, 0), 7, 7});
  ConvolutionShape wide = Pool(5, 3, 1, 2);
  wide.dilation_width = 3;
  wide.dilation_height = 2;
  cases.push_back({wide, 9, 300});
  return cases;
}

TEST(QuantisedMaxPool, LargestOfEachWindow) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (const auto& [shape, height, width] : PoolCases()) {
      ConvolutionShape lanes = shape;
      lanes.input_channels = lanes.output_channels = QuadsOf(shape.input_channels);
      const std::vector<uint8_t> input = RandomBytes(static_cast<size_t>(shape.input_channels * height * width), &random);
      MaxPoolPlan plan;
      ASSERT_TRUE(MakeMaxPoolPlan(lanes, height, width, 2, &plan).ok());
      GuardedLanes in(QuantisedStride(plan.input, shape.input_channels));
      GuardedLanes out(QuantisedStride(plan.output, shape.input_channels)), scratch(plan.scratch_floats());
      FillPanels(plan.input, shape.input_channels, 1, input, &in);
      RunQuantisedMaxPool(plan, in.data(), out.data(), {}, 0, plan.items(1), scratch.data());
      ASSERT_TRUE(out.guard_is_untouched() && scratch.guard_is_untouched());
      const std::vector<uint8_t> got = Planar(plan.output, shape.input_channels, &out);
      std::vector<uint8_t> expected(got.size(), 0);
      ForEachWindowPixel(shape, height, width, [&](size_t i, size_t pixel) {
        expected[i] = std::max(expected[i], input[pixel]);
      });
      ASSERT_EQ(got, expected) << shape.kernel_height << " of " << height;
    }
  });
}

TEST(QuantisedAveragePool, MeanOfEachWindow) {
  std::mt19937 random(2);
  for (const auto& [shape, height, width] : PoolCases()) {
    for (const bool counts_padding : {false, true}) {
      const std::vector<uint8_t> input = RandomBytes(static_cast<size_t>(shape.input_channels * height * width), &random);
      AveragePoolPlan plan = MakeAveragePoolPlan(shape, height, width, 3);
      plan.scale = 0.9f;
      plan.input_zero_point = 100;
      plan.output_zero_point = 110;
      plan.counts_padding = counts_padding;
      GuardedLanes in(QuantisedStride(plan.input, shape.input_channels));
      GuardedLanes out(QuantisedStride(plan.output, shape.input_channels));
      FillPanels(plan.input, shape.input_channels, 1, input, &in);
      RunAveragePool(plan, in.data(), out.data(), {}, 0, plan.items(1));
      ASSERT_TRUE(out.guard_is_untouched());
      const std::vector<uint8_t> got = Planar(plan.output, shape.input_channels, &out);
      std::vector<int32_t> sums(got.size(), 0), counts(got.size(), 0);
      ForEachWindowPixel(shape, height, width, [&](size_t i, size_t pixel) {
        sums[i] += input[pixel] - 100;
        ++counts[i];
      });
      for (size_t i = 0; i < got.size(); ++i) {
        const int32_t counted = counts_padding ? static_cast<int32_t>(shape.taps()) : std::max(counts[i], 1);
        volatile const float scale = 0.9f / static_cast<float>(counted);
        volatile const float mean = static_cast<float>(sums[i]) * scale;
        ASSERT_EQ(got[i], std::clamp(static_cast<int>(std::nearbyint(mean)) + 110, 0, 255)) << i;
      }
    }
  }
}

TEST(QuantisedConcat, RescalesAndCopies) {
  std::mt19937 random(3);
  const Quantisation from[] = {{0.5f, 7}, {0.25f, 128}, {0.5f, 7}};
  for (const std::vector<int64_t>& channels : {std::vector<int64_t>{4, 8, 4}, {3, 5, 6}, {1, 4, 2}, {8, 3, 1}}) {
    const PanelLayout layout = MakePanelLayout(9, 30, 2);
    const int64_t all = channels[0] + channels[1] + channels[2];
    GuardedLanes out(QuantisedStride(layout, all));
    std::vector<uint8_t> expected;
    ConcatInput input;
    for (size_t i = 0; i < 3; ++i) {
      input.channels = channels[i];
      const std::vector<uint8_t> table = RescalingTable(from[i], from[0]);
      input.table = i == 1 ? PanelTable(table) : std::vector<PanelByte>();
      const std::vector<uint8_t> values = RandomBytes(static_cast<size_t>(channels[i] * 270), &random);
      for (const uint8_t value : values) expected.push_back(i == 1 ? table[value] : value);
      GuardedLanes in(QuantisedStride(layout, channels[i]));
      FillPanels(layout, channels[i], 1, values, &in);
      CopyChannels(layout, input, all, in.data(), {0, layout.tiles()}, out.data());
      input.first_channel += channels[i];
    }
    ASSERT_TRUE(out.guard_is_untouched());
    EXPECT_EQ(Planar(layout, all, &out), expected);
  }
  // (value - 128) / 2, ties to even, + 7
  const std::vector<uint8_t> table = RescalingTable(from[1], from[0]);
  EXPECT_EQ(table[128], 7);
  EXPECT_EQ(table[129], 7);
  EXPECT_EQ(table[131], 9);
  EXPECT_EQ(table[0], 0);
  EXPECT_EQ(table[255], 71);
}

TEST(QuantisedResize, RepeatsPixels) {
  std::mt19937 random(4);
  for (const int64_t width : {1, 7, 60, 130}) {
    for (const int64_t rows : {1, 2, 3}) {
      for (const int64_t columns : {1, 2, 5}) {
        const PanelLayout from = MakePanelLayout(5, width, 2), to = MakePanelLayout(5 * rows, width * columns, 2);
        const std::vector<uint8_t> input = RandomBytes(static_cast<size_t>(6 * 5 * width), &random);
        GuardedLanes in(QuantisedStride(from, 6)), out(QuantisedStride(to, 6));
        FillPanels(from, 6, 1, input, &in);
        RepeatPixels(from, to, rows, columns, 2, in.data(), {0, 2}, out.data());
        ASSERT_TRUE(out.guard_is_untouched());
        const std::vector<uint8_t> got = Planar(to, 6, &out);
        for (int64_t i = 0; i < static_cast<int64_t>(got.size()); ++i) {
          const int64_t x = i % to.width, y = i / to.width % to.height, channel = i / to.width / to.height;
          ASSERT_EQ(got[static_cast<size_t>(i)],
                    input[static_cast<size_t>((channel * 5 + y / rows) * width + x / columns)]);
        }
      }
    }
  }
}

TEST(QuantisedPanel, FloatsThereAndBack) {
  const Quantisation q{0.5f, 100};
  const PanelLayout layout = MakePanelLayout(1, 8);
  const std::vector<float> input = {0.0f, 0.24f, 0.25f, 0.75f, -50.0f, -50.3f, 1e30f, std::nanf("")};
  GuardedLanes panel(QuantisedStride(layout, 1));
  QuantisedFromPlanar(layout, 1, input.data(), q, {0, layout.tiles()}, {0, 1}, panel.bytes());
  EXPECT_EQ(Planar(layout, 1, &panel), (std::vector<uint8_t>{100, 100, 100, 102, 0, 0, 255, 0}));
  std::vector<float> back(8);
  PlanarFromQuantised(layout, 1, panel.bytes(), q, {0, layout.tiles()}, {0, 1}, back.data());
  EXPECT_EQ(back, (std::vector<float>{0.0f, 0.0f, 0.0f, 1.0f, -50.0f, -50.0f, 77.5f, -50.0f}));
}

TEST(QuantisedPanel, StorageTellsTheChannels) {
  for (const int64_t height : {1, 7, 14, 56}) {
    for (const int64_t width : {1, 7, 14, 56, 113}) {
      const PanelLayout layout = MakePanelLayout(height, width);
      int64_t before = 0;
      for (int64_t channels = 1; channels < 200; ++channels) {
        const int64_t storage = QuantisedStorage(layout, channels);
        ASSERT_EQ(ChannelsOfQuantised(layout, storage), channels);
        ASSERT_GE(storage * height * width, kQuad * QuantisedStride(layout, channels));
        ASSERT_NE(storage, before);
        before = storage;
      }
    }
  }
}

}  // namespace
}  // namespace gossamer
