#include "kernels/max_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "tests/draw.h"
#include "tests/panels.h"
#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

void Check(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t images, int64_t parts, int64_t workers,
           unsigned seed) {
  SCOPED_TRACE(testing::Message() << images << " x " << shape.input_channels << " x " << height << " x " << width
                                  << ", kernel " << shape.kernel_height << " " << shape.kernel_width << ", stride "
                                  << shape.stride_height << " " << shape.stride_width << ", dilation "
                                  << shape.dilation_height << " " << shape.dilation_width << ", pads " << shape.pad_top
                                  << " " << shape.pad_left << " " << shape.pad_bottom << " " << shape.pad_right);
  std::mt19937 random(seed);
  const int64_t channels = shape.input_channels;
  const std::vector<float> input = RandomValues(static_cast<size_t>(images * channels * height * width), &random);
  MaxPoolPlan plan;
  ASSERT_TRUE(MakeMaxPoolPlan(shape, height, width, parts, &plan).ok());
  const AlignedFloats in = Panels(plan.input, channels, images, input);
  AlignedFloats out(plan.output.image_stride(channels) * images);
  const ImageStrides strides{plan.input.image_stride(channels), plan.output.image_stride(channels)};
  const int64_t items = plan.items(images);
  for (int64_t worker = 0; worker < workers; ++worker) {
    AlignedFloats scratch(plan.scratch_floats());
    RunMaxPool(plan, in.data(), out.data(), strides, items * worker / workers, items * (worker + 1) / workers,
               scratch.data());
    ASSERT_TRUE(scratch.guard_is_untouched());
  }
  ASSERT_TRUE(out.guard_is_untouched());
  const int64_t out_height = shape.output_height(height), out_width = shape.output_width(width);
  for (int64_t image = 0; image < images; ++image) {
    std::vector<float> got(static_cast<size_t>(channels * out_height * out_width));
    PlanarFromPanel(plan.output, channels, out.data() + image * strides.output, {0, plan.output.tiles()},
                    {0, channels}, got.data());
    for (int64_t i = 0; i < channels * out_height * out_width; ++i) {
      const int64_t channel = i / out_width / out_height, y = i / out_width % out_height, x = i % out_width;
      float expected = -std::numeric_limits<float>::infinity();
      for (int64_t kh = 0; kh < shape.kernel_height; ++kh) {
        for (int64_t kw = 0; kw < shape.kernel_width; ++kw) {
          const int64_t row = y * shape.stride_height + kh * shape.dilation_height - shape.pad_top;
          const int64_t column = x * shape.stride_width + kw * shape.dilation_width - shape.pad_left;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          expected = std::max(
              expected, input[static_cast<size_t>(((image * channels + channel) * height + row) * width + column)]);
        }
      }
      ASSERT_EQ(got[static_cast<size_t>(i)], expected) << "image " << image << ", element " << i;
    }
  }
}

ConvolutionShape Pool(int64_t channels, int64_t kernel, int64_t stride, int64_t pad) {
  ConvolutionShape shape = Square(channels, channels, kernel, stride);
  shape.pad_top = shape.pad_left = shape.pad_bottom = shape.pad_right = pad;
  return shape;
}

TEST(MaxPool, ShapesOfNetworks) {
  ForEachTarget([] {
    for (const int64_t size : {224, 112, 56, 28, 14}) {
      Check(Pool(3, 2, 2, 0), size, size, 1, 1, 1, 1);
      Check(Pool(3, 3, 2, 1), size, size, 1, 2, 2, 1);
      Check(Pool(3, 3, 1, 1), size, size, 1, 1, 1, 1);
    }
  });
}

TEST(MaxPool, ShapesDrawnAtRandom) {
  ForEachTarget([] {
    for (int round = 0; round < 150; ++round) {
      Draw draw(round);
      ConvolutionShape shape = Pool(draw(1, 6), 1, 1, 0);
      shape.kernel_height = draw(1, 5);
      shape.kernel_width = draw(1, 5);
      shape.stride_height = draw(1, 3);
      shape.stride_width = draw(1, 3);
      shape.dilation_height = draw(1, 2);
      shape.dilation_width = draw(1, 2);
      shape.pad_top = draw(0, 3);
      shape.pad_left = draw(0, 3);
      shape.pad_bottom = draw(0, 3);
      shape.pad_right = draw(0, 3);
      const int64_t height = draw(1, 40), width = draw(0, 3) == 0 ? draw(100, 400) : draw(1, 60);
      if (!CheckImage(shape, height, width).ok()) continue;
      Check(shape, height, width, draw(1, 2), draw(1, 3), draw(1, 3), static_cast<unsigned>(round));
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(MaxPool, NanWinsWhereverItStands) {
  ForEachTarget([] {
    for (size_t place = 0; place < 4; ++place) {
      MaxPoolPlan plan;
      ASSERT_TRUE(MakeMaxPoolPlan(Pool(1, 2, 2, 0), 2, 34, 1, &plan).ok());
      std::vector<float> input(68, 1.0f);
      input[place / 2 * 34 + place % 2] = std::numeric_limits<float>::quiet_NaN();
      const AlignedFloats in = Panels(plan.input, 1, 1, input);
      AlignedFloats out(plan.output.image_stride(1));
      AlignedFloats scratch(plan.scratch_floats());
      RunMaxPool(plan, in.data(), out.data(), {}, 0, plan.items(1), scratch.data());
      EXPECT_TRUE(std::isnan(out.data()[0])) << place;
      EXPECT_EQ(out.data()[1], 1.0f);
    }
  });
}

}  // namespace
}  // namespace gossamer
