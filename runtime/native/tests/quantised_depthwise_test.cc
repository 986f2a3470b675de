#include "kernels/quantised_depthwise.h"

#include <gtest/gtest.h>

#include "tests/panels.h"
#include "tests/quantised_case.h"

namespace gossamer {
namespace {

ConvolutionShape Depthwise(int64_t channels, int64_t kernel, int64_t stride) {
  ConvolutionShape shape = Square(channels, channels, kernel, stride);
  shape.groups = channels;
  return shape;
}

// Each case runs both kernels that there are for it (CheckQuantised).
TEST(QuantisedDepthwise, ShapesOfNetworks) {
  for (const int64_t size : {112, 56, 28, 14, 7}) {
    for (const int64_t stride : {1, 2}) {
      for (const int64_t kernel : {3, 5}) {
        QuantisedCase c;
        c.shape = Depthwise(6, kernel, stride);
        c.height = c.width = size;
        c.density = 1.0;
        c.lower = c.output_zero_point;
        ASSERT_TRUE(SuitsQuantisedDepthwise(c.shape, size, size, 1));
        CheckQuantised(c, 1);
      }
    }
  }
}

TEST(QuantisedDepthwise, ResidualsTablesAndThreads) {
  for (const int64_t channels : {2, 4, 9}) {
    for (const int64_t threads : {1, 2, 5}) {
      for (const int residual : {0, 1, 2}) {
        QuantisedCase c;
        c.shape = Depthwise(channels, 3, 1);
        c.height = 9;
        c.width = 13;
        c.images = 2;
        c.density = 0.8;
        c.residual = residual > 0;
        c.in_place = residual > 1;
        c.table = channels == 4;
        c.input_zero_point = channels == 9 ? 0 : 130;
        c.threads = c.workers = threads;
        CheckQuantised(c, 2);
      }
    }
  }
}

// Weights that leave 16 bits where pairs of products are added, of any number of taps.
TEST(QuantisedDepthwise, Extremes) {
  for (int64_t kernel = 1; kernel <= 4; ++kernel) {
    for (const int weight : {-128, 127}) {
      for (const uint8_t input : {0, 255}) {
        QuantisedCase c;
        c.shape = Depthwise(5, kernel, 1);
        c.shape.pad_bottom = c.shape.pad_right = 1;
        c.height = 5;
        c.width = 20;
        c.weight.assign(static_cast<size_t>(5 * kernel * kernel), static_cast<int8_t>(weight));
        c.input.assign(5 * 5 * 20, input);
        CheckQuantised(c, 1);
      }
    }
  }
}

TEST(QuantisedDepthwise, ShapesDrawnAtRandom) {
  int suited = 0;
  for (int round = 0; round < 120; ++round) {
    Draw draw(round);
    QuantisedCase c;
    c.shape = Depthwise(draw(2, 10), 1, 1);
    c.shape.kernel_height = draw(1, 5);
    c.shape.kernel_width = draw(1, 5);
    c.shape.stride_height = draw(1, 3);
    c.shape.stride_width = draw(1, 3);
    c.shape.dilation_height = draw(1, 3);
    c.shape.dilation_width = draw(1, 3);
    c.shape.pad_top = draw(0, 4);
    c.shape.pad_left = draw(0, 4);
    c.shape.pad_bottom = draw(0, 4);
    c.shape.pad_right = draw(0, 4);
    c.height = draw(1, 24);
    c.width = draw(0, 4) == 0 ? draw(100, 260) : draw(1, 40);
    if (!CheckImage(c.shape, c.height, c.width).ok()) continue;
    c.density = 0.9;
    c.residual = draw(0, 2) == 0;
    c.threads = draw(1, 3);
    c.workers = draw(1, 3);
    suited += SuitsQuantisedDepthwise(c.shape, c.height, c.width, c.threads);
    CheckQuantised(c, static_cast<unsigned>(round));
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(suited, 50);
}

}  // namespace
}  // namespace gossamer
