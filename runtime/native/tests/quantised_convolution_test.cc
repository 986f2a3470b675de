#include "kernels/quantised_convolution.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/panels.h"
#include "tests/quantised_case.h"

namespace gossamer {
namespace {

TEST(QuantisedConvolution, ReadsAOneByOneByHand) {
  // Two channels, one row of three pixels: sum = 2 * (channel 1 - 5) - 1, of which half is rounded to even, plus 10.
  const std::vector<int8_t> dense = {0, 2};
  const SparseByteWeight weight = SparseWeightFromDense({1, 2, 1, 1}, dense.data());
  const int32_t bias = -1;
  Requantisation to;
  to.scale = {0.5f};
  to.zero_point = 10;
  ForEachByteTraits([&](const ByteTraits& traits) {
    QuantisedOptions options;
    options.traits = traits;
    QuantisedConvolutionPlan plan;
    ASSERT_TRUE(MakeQuantisedConvolutionPlan(Square(2, 1, 1, 1), weight, &bias, 5, to, 1, 3, options, &plan).ok());
    GuardedLanes in(QuantisedStride(plan.input, 2)), out(QuantisedStride(plan.output, 1)), scratch(plan.scratch_lanes());
    FillPanels(plan.input, 2, 1, {9, 9, 9, 6, 7, 255}, &in);
    RunQuantisedConvolution(plan, in.data(), nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
    std::vector<uint8_t> got(3);
    PlanarFromQuantised(plan.output, 1, out.bytes(), {0, plan.output.tiles()}, {0, 1}, got.data());
    // 1 / 2 -> 0, 3 / 2 -> 2, 499 / 2 -> 250 and more than there is room for
    EXPECT_EQ(got, (std::vector<uint8_t>{10, 12, 255}));
  });
}

TEST(QuantisedConvolution, ShapesOfResNet50) {
  struct Layer {
    int64_t inputs, size, outputs, kernel, stride;
  };
  // Channels are cut to keep the reference short; sizes, kernels and strides are the network's.
  const Layer layers[] = {{64, 56, 17, 1, 1}, {40, 56, 9, 3, 1}, {40, 56, 9, 3, 2}, {64, 56, 9, 1, 2},
                          {128, 28, 18, 1, 1}, {60, 28, 9, 3, 1}, {60, 28, 9, 3, 2}, {128, 28, 9, 1, 2},
                          {256, 14, 18, 1, 1}, {90, 14, 9, 3, 1}, {90, 14, 9, 3, 2}, {256, 14, 9, 1, 2},
                          {512, 7, 35, 1, 1}, {170, 7, 18, 3, 1}};
  for (const Layer& layer : layers) {
    for (const bool shift : {true, false}) {
      QuantisedCase c;
      c.shape = Square(layer.inputs, layer.outputs, layer.kernel, layer.stride);
      c.height = c.width = layer.size;
      c.density = 0.1;
      c.lower = c.output_zero_point;
      c.column_shift = shift;
      CheckQuantised(c, 7);
    }
  }
}

// Of few weights kernel rows are read across cache lines, of many they are copied to whole ones.
TEST(QuantisedConvolution, KernelRowsThatAreNoWholeVectors) {
  for (const int64_t size : {28, 56}) {
    for (const int64_t stride : {1, 2}) {
      for (const double density : {0.02, 0.3, 1.0}) {
        QuantisedCase c;
        c.shape = Square(24, 40, 3, stride);
        c.height = c.width = size * stride;
        c.density = density;
        c.column_shift = false;
        CheckQuantised(c, static_cast<unsigned>(size + stride));
      }
    }
  }
}

TEST(QuantisedConvolution, FirstLayersOfImages) {
  // Rows of one tile and of several, kernels of other sizes, padding wider than a row reads, few and no weights.
  for (const int64_t width : {113, 224, 230, 449}) {
    for (const int64_t kernel : {5, 7, 8, 11}) {
      QuantisedCase c;
      c.shape = Square(3, 6, kernel, 2);
      c.shape.pad_left = width % 5;
      c.shape.pad_right = width % 3;
      c.shape.kernel_height = kernel - 2;
      c.height = 9;
      c.width = width;
      c.density = kernel == 8 ? 0.1 : kernel == 11 ? 0.0 : 1.0;
      CheckQuantised(c, static_cast<unsigned>(width + kernel));
    }
  }
}

TEST(QuantisedConvolution, FirstLayersWhoseTilesShareRows) {
  // More rows than are staged below one another; rows that tiles do not share, or share but one; padding of whole tiles;
  // last bytes of one to nine kernel rows.
  for (const int64_t kernel_width : {3, 5, 7, 11}) {
    for (const int64_t kernel_height : {1, 2, 4, 7, 9}) {
      for (const int64_t stride : {1, 2, 3}) {
        QuantisedCase c;
        c.shape = Square(3, 5, kernel_width, 2);
        c.shape.kernel_height = kernel_height;
        c.shape.stride_height = stride;
        c.shape.pad_top = kernel_width == 7 ? kernel_height + 1 : kernel_height / 2;
        c.shape.pad_bottom = kernel_height / 3;
        c.shape.dilation_height = kernel_width == 11 && stride == 2 ? 2 : 1;
        c.height = 29;
        c.width = kernel_width == 5 ? 449 : 113;
        c.density = kernel_height == 4 ? 0.3 : 1.0;
        CheckQuantised(c, static_cast<unsigned>(100 * kernel_width + 10 * kernel_height + stride));
      }
    }
  }
}

TEST(QuantisedConvolution, ResidualsBoundsAndTables) {
  for (const int64_t kernel : {1, 3}) {
    for (const int residual : {0, 1, 2}) {
      for (const bool table : {false, true}) {
        for (const int32_t zero_point : {0, 128, 255}) {
          QuantisedCase c;
          c.shape = Square(33, 7, kernel, 1);
          c.height = 9;
          c.width = 13;
          c.residual = residual > 0;
          c.in_place = residual > 1;
          c.table = table;
          c.input_zero_point = c.output_zero_point = zero_point;
          c.residual_zero_point = zero_point == 255 ? 99 : zero_point;
          c.lower = zero_point == 128 ? 100 : 0;
          c.upper = zero_point == 128 ? 200 : 255;
          c.block_bytes = 8 << 10;
          CheckQuantised(c, 3);
        }
      }
    }
  }
}

TEST(QuantisedConvolution, EveryWidthOfARow) {
  for (int64_t width = 1; width <= 130; ++width) {
    for (const int64_t kernel : {1, 3}) {
      QuantisedCase c;
      c.shape = Square(5, 6, kernel, 1);
      c.height = 3;
      c.width = width;
      c.density = 0.6;
      c.residual = c.in_place = width % 2 == 0;
      CheckQuantised(c, static_cast<unsigned>(width));
    }
  }
}

// Rows that are cut into two and three segments: every width of the last one.
TEST(QuantisedConvolution, WideRows) {
  for (int64_t width = 113; width <= 340; width += width < 240 ? 1 : 7) {
    for (const int64_t stride : {1, 2}) {
      QuantisedCase c;
      c.shape = Square(7, 5, 3, stride);
      c.height = 3;
      c.width = stride * width;
      c.density = 0.4;
      c.residual = c.in_place = width % 2 == 0;
      c.threads = 2;
      c.block_bytes = width % 3 == 0 ? 4 << 10 : 0;
      CheckQuantised(c, static_cast<unsigned>(width));
    }
  }
}

TEST(QuantisedConvolution, NarrowImages) {
  for (int64_t width = 1; width <= 8; ++width) {
    for (const int64_t height : {1, 2, 8, 31}) {
      for (const int64_t threads : {1, 3, 8}) {
        for (const bool shift : {true, false}) {
          QuantisedCase c;
          c.shape = Square(4, 30, 3, 1);
          c.height = height;
          c.width = width;
          c.density = 0.5;
          c.column_shift = shift;
          c.threads = c.workers = threads;
          c.residual = c.in_place = threads == 3;
          CheckQuantised(c, static_cast<unsigned>(width));
        }
      }
    }
  }
}

TEST(QuantisedConvolution, AColumnIsARowLyingDown) {
  for (const int64_t groups : {1, 2, 6}) {
    for (const int64_t height : {2, 31, 113, 508}) {
      QuantisedCase c;
      c.shape.input_channels = 6;
      c.shape.output_channels = 12;
      c.shape.groups = groups;
      c.shape.kernel_height = 5;
      c.shape.dilation_height = groups;
      c.shape.pad_top = 2 * groups;
      c.shape.pad_bottom = 2 * groups + 1;
      c.height = height;
      c.images = 2;
      c.residual = true;
      c.threads = c.workers = 3;
      CheckQuantised(c, static_cast<unsigned>(height));
    }
  }
}

TEST(QuantisedConvolution, EmptyFullAndMixedRows) {
  for (const double density : {0.0, 1.0}) {
    for (const int64_t kernel : {1, 3}) {
      for (const int64_t threads : {1, 3}) {
        QuantisedCase c;
        c.shape = Square(20, 11, kernel, 1);
        c.height = c.width = 10;
        c.density = density;
        c.block_bytes = 2 << 10;  // several blocks, so that rows are empty in some
        c.threads = threads;
        CheckQuantised(c, 11);
      }
    }
  }
  // Rows with 0, 1, 2, ... nonzeros, all in one corner.
  QuantisedCase c;
  c.shape = Square(64, 16, 1, 1);
  c.height = c.width = 7;
  c.block_bytes = 1;
  c.density = 0.125;
  c.weight.assign(1024, 0);
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < row; ++column) c.weight[row * 64 + 4 * column] = 100;
  }
  CheckQuantised(c, 12);
}

// The largest weights and inputs of either sign: what leaves 16 bits where pairs of products are added.
TEST(QuantisedConvolution, Extremes) {
  for (const int weight : {-128, 127}) {
    for (const int second : {-128, 0, 1, 2, 127}) {
      for (const uint8_t input : {0, 255}) {
        for (const int32_t zero_point : {0, 1, 255}) {
          QuantisedCase c;
          c.shape = Square(8, 4, 3, 1);
          c.height = 4;
          c.width = 9;
          c.input_zero_point = zero_point;
          for (size_t i = 0; i < 4 * 8 * 9; ++i) c.weight.push_back(static_cast<int8_t>(i / 9 % 2 == 0 ? weight : second));
          c.input.assign(8 * 4 * 9, input);
          CheckQuantised(c, 1);
        }
      }
    }
  }
}

// The same in groups of four rows, of two and of one, of even and odd numbers of quads, scaled so that most sums are
// within the bounds of a byte.
TEST(QuantisedConvolution, ExtremesInGroupsOfRows) {
  for (const int64_t width : {3, 9, 14}) {
    for (const int64_t quads : {1, 2, 3, 4, 5}) {
      for (const int second : {-128, -127, 1, 127}) {
        for (const uint8_t input : {0, 255}) {
          QuantisedCase c;
          c.shape = Square(4 * quads, 7, 1, 1);
          c.height = 4;
          c.width = width;
          c.scale = 0.2f;
          for (int64_t i = 0; i < 7 * 4 * quads; ++i) {
            c.weight.push_back(static_cast<int8_t>(i % 2 == 0 ? -128 : second));
          }
          c.input.assign(static_cast<size_t>(4 * quads * 4 * width), input);
          CheckQuantised(c, 1);
        }
      }
    }
  }
}

TEST(QuantisedConvolution, SplitQuadsAddUpToTheQuad) {
  const int8_t weights[] = {-128, -127, -100, -1, 0, 1, 28, 64, 100, 127};
  for (const int8_t a : weights) {
    for (const int8_t b : weights) {
      const std::vector<int8_t> dense = {a, b, b, 1};
      const SparseByteWeight weight = SparseWeightFromDense({1, 4, 1, 1}, dense.data());
      const QuadWeight quads = QuadsFromWeight(Square(4, 1, 1, 1), weight, true);
      int sum[kQuad] = {};
      for (const Quad& quad : quads.value) {
        EXPECT_FALSE(PairsOverflow(quad));
        for (int64_t i = 0; i < kQuad; ++i) sum[i] += quad.weight[i];
#if defined(__aarch64__)
        // Two quads of the largest magnitudes, times -128, are within 16 bits.
        for (int64_t i = 0; i < kQuad; i += 2) EXPECT_LE(std::abs(quad.weight[i]) + std::abs(quad.weight[i + 1]), 127);
#endif
      }
      for (size_t i = 0; i < dense.size(); ++i) EXPECT_EQ(sum[i], dense[i]) << +a << " " << +b;
    }
  }
}

// 2^31 / (255 * 127) is 66,311 weights of the largest kind: just below that there is no other sum, above there is an error.
TEST(QuantisedConvolution, SumsNearTheirLimit) {
  for (const int64_t channels : {66310, 66311}) {
    for (const uint8_t input : {0, 255}) {
      QuantisedCase c;
      c.shape = Square(channels, 1, 1, 1);
      c.width = 2;
      c.density = 100.0;
      c.input_zero_point = 255 - input;
      c.output_zero_point = 128;
      c.bias = false;
      c.weight.assign(static_cast<size_t>(channels), 127);
      c.input.assign(static_cast<size_t>(2 * channels), input);
      const int32_t most = static_cast<int32_t>(INT32_MAX - 255 * 127 * channels);
      const SparseByteWeight weight = SparseWeightFromDense({1, channels, 1, 1}, c.weight.data());
      for (const int32_t sign : {-1, 1}) {
        const int32_t fits = sign * most, not_quite = sign * (most + 1);
        EXPECT_TRUE(CheckSums(weight, &fits).ok());
        EXPECT_FALSE(CheckSums(weight, &not_quite).ok());
      }
      CheckQuantised(c, 1);
    }
  }
  const std::vector<int8_t> ones(66312, 127);
  EXPECT_FALSE(CheckSums(SparseWeightFromDense({1, 66312, 1, 1}, ones.data()), nullptr).ok());
}

// Every value of a table, by vectors and what is left over.
TEST(QuantisedConvolution, TablesOfLongRows) {
  for (const int64_t width : {14, 56, 112, 109}) {
    QuantisedCase c;
    c.shape = Square(8, 5, 1, 1);
    c.height = 2;
    c.width = width;
    c.table = true;
    c.scale = 3.0f;
    c.output_zero_point = 128;
    CheckQuantised(c, 8);
  }
}

// Scaled sums far beyond 32 bits, and below the smallest of numbers.
TEST(QuantisedConvolution, ScalesFarFromOne) {
  for (const float scale : {1e-32f, 1e-3f, 1e3f, 1e9f, 1e19f}) {
    for (const bool residual : {false, true}) {
      QuantisedCase c;
      c.shape = Square(9, 6, 3, 1);
      c.height = c.width = 8;
      c.scale = scale;
      c.residual = residual;
      CheckQuantised(c, 6);
    }
  }
}

TEST(QuantisedConvolution, GroupsOfAnySize) {
  for (const int64_t groups : {2, 3, 4, 5, 8, 12}) {
    for (const int64_t inputs : {1, 2, 3, 4, 6, 8}) {
      for (const int64_t outputs : {1, 2, 4, 5}) {
        QuantisedCase c;
        c.shape = Square(groups * inputs, groups * outputs, 3, 1);
        c.shape.groups = groups;
        c.height = 6;
        c.width = 11;
        c.density = 0.7;
        c.threads = c.workers = outputs;
        c.block_bytes = inputs << 10;
        CheckQuantised(c, static_cast<unsigned>(inputs));
      }
    }
  }
}

TEST(QuantisedConvolution, WorkersAndSlicesCoverEverything) {
  for (const int64_t workers : {1, 2, 3, 7}) {
    for (const int64_t threads : {1, 2, 5}) {
      for (const int64_t kernel : {1, 3}) {
        QuantisedCase c;
        c.shape = Square(12, 13, kernel, 1);
        c.height = 17;
        c.width = 30;
        c.images = 2;
        c.residual = c.in_place = workers == 2;
        c.threads = threads;
        c.workers = workers;
        CheckQuantised(c, 5);
      }
    }
  }
}

TEST(QuantisedConvolution, ShapesDrawnAtRandom) {
  const int rounds = RoundsOr(150);
  for (int round = 0; round < rounds; ++round) {
    Draw draw(round);
    QuantisedCase c;
    if (!c.DrawImages(&draw)) continue;
    c.table = draw(0, 3) == 0;
    c.input_zero_point = static_cast<int32_t>(draw(0, 1) == 0 ? 0 : draw(0, 255));
    c.output_zero_point = static_cast<int32_t>(draw(0, 255));
    c.DrawParts(&draw);
    CheckQuantised(c, static_cast<unsigned>(round));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(QuantisedConvolution, RefusesNumbersThatAreNone) {
  const auto refused = [](const auto& change) {
    Requantisation to;
    to.scale = {0.5f, 0.25f};
    change(&to);
    return !CheckRequantisation(to, 2).ok();
  };
  EXPECT_FALSE(refused([](Requantisation*) {}));
  for (const float scale : {0.0f, -1.0f, std::nanf(""), INFINITY, 1e-40f, 1e20f}) {
    EXPECT_TRUE(refused([=](Requantisation* to) { to->scale[1] = scale; }));
    EXPECT_TRUE(refused([=](Requantisation* to) { to->residual_scale = scale; }) || scale == 0.0f);
    EXPECT_TRUE(refused([=](Requantisation* to) { to->sum_step = scale; }) || scale == 0.0f);
  }
  for (const int32_t zero_point : {-1, 256, INT32_MIN, INT32_MAX}) {
    EXPECT_TRUE(refused([=](Requantisation* to) { to->zero_point = zero_point; }));
    EXPECT_TRUE(refused([=](Requantisation* to) { to->residual_zero_point = zero_point; }));
    EXPECT_TRUE(refused([=](Requantisation* to) { to->lower = zero_point; }));
    EXPECT_TRUE(refused([=](Requantisation* to) { to->upper = zero_point; }));
  }
  EXPECT_TRUE(refused([](Requantisation* to) { to->lower = 4, to->upper = 3; }));
  EXPECT_TRUE(refused([](Requantisation* to) { to->sum_lower = 4.0f, to->sum_upper = 3.0f; }));
  for (const float bound : {std::nanf(""), INFINITY, 256.0f}) {
    EXPECT_TRUE(refused([=](Requantisation* to) { to->sum_upper = bound; }));
    EXPECT_TRUE(refused([=](Requantisation* to) { to->sum_lower = -bound; }));
  }
  EXPECT_TRUE(refused([](Requantisation* to) { to->scale.pop_back(); }));
  EXPECT_TRUE(refused([](Requantisation* to) { to->table.resize(255); }));
}

}  // namespace
}  // namespace gossamer
