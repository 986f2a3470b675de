#include "kernels/convolution.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/convolution_case.h"
#include "tests/panels.h"
#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

struct Case : ConvolutionCase {
  Epilogue epilogue;
  std::vector<float> weight;  // drawn at random if empty

  std::string Describe() const {
    return DescribeWith("activation " + std::to_string(static_cast<int>(epilogue.activation)));
  }
};

void CheckIn(Arithmetic arithmetic, const Case& c, unsigned seed) {
  SCOPED_TRACE(testing::Message() << c.Describe() << ", arithmetic " << static_cast<int>(arithmetic));
  std::mt19937 random(seed);
  const ConvolutionShape& shape = c.shape;
  const int64_t out_height = shape.output_height(c.height);
  const int64_t out_width = shape.output_width(c.width);
  const int64_t in_size = shape.input_channels * c.height * c.width;
  const int64_t out_size = shape.output_channels * out_height * out_width;
  const std::vector<int64_t> weight_shape = {shape.output_channels, shape.input_channels / shape.groups,
                                             shape.kernel_height, shape.kernel_width};
  const size_t weights = static_cast<size_t>(shape.output_channels * shape.input_channels / shape.groups * shape.taps());
  const std::vector<float> dense = c.weight.empty() ? RandomSparse(weights, c.density, &random) : c.weight;
  const std::vector<float> input = RandomValues(static_cast<size_t>(in_size * c.images), &random);
  const std::vector<float> bias =
      c.bias ? RandomValues(static_cast<size_t>(shape.output_channels), &random) : std::vector<float>();
  const std::vector<float> residual = RandomValues(static_cast<size_t>(out_size * c.images), &random);

  const SparseWeight weight = SparseWeightFromDense(weight_shape, dense.data());
  ASSERT_TRUE(CheckConvolution(shape, weight).ok()) << CheckConvolution(shape, weight).problem();
  ASSERT_TRUE(CheckImage(shape, c.height, c.width).ok());
  PlanOptions options;
  options.arithmetic = arithmetic;
  options.traits = CurrentKernelTraits(arithmetic);
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  options.column_shift = c.column_shift;
  ConvolutionPlan plan;
  const Status made = MakeConvolutionPlan(shape, weight, c.bias ? bias.data() : nullptr, c.epilogue, c.height, c.width,
                                          options, &plan);
  ASSERT_TRUE(made.ok()) << made.problem();

  const AlignedFloats in = Panels(plan.input, shape.input_channels, c.images, input);
  const AlignedFloats other = Panels(plan.output, shape.output_channels, c.images, residual);
  AlignedFloats out = c.in_place ? other : AlignedFloats(plan.output.image_stride(shape.output_channels) * c.images);
  const float* add = !c.residual ? nullptr : c.in_place ? out.data() : other.data();
  ImageStrides strides;
  strides.input = plan.input.image_stride(shape.input_channels);
  strides.output = plan.output.image_stride(shape.output_channels);
  const int64_t items = plan.items(c.images);
  for (int64_t worker = 0; worker < c.workers; ++worker) {
    AlignedFloats scratch(plan.scratch_floats());
    RunConvolution(plan, in.data(), add, out.data(), strides, items * worker / c.workers,
                   items * (worker + 1) / c.workers, scratch.data());
    ASSERT_TRUE(scratch.guard_is_untouched());
  }
  ASSERT_TRUE(out.guard_is_untouched());

  for (int64_t image = 0; image < c.images; ++image) {
    const ReferenceResult expected =
        ReferenceConvolution(shape, dense, bias, c.residual ? residual.data() + image * out_size : nullptr, c.epilogue,
                             c.height, c.width, input.data() + image * in_size);
    std::vector<float> got(static_cast<size_t>(out_size), kUntouched);
    PlanarFromPanel(plan.output, shape.output_channels, out.data() + image * strides.output, {0, plan.output.tiles()},
                    {0, shape.output_channels}, got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], expected.value[i], AllowedError(arithmetic, c.epilogue) * (1e-3 + expected.magnitude[i]))
          << "image " << image << ", element " << i;
    }
  }
}

void Check(const Case& c, unsigned seed) {
  ForEachArithmetic([&](Arithmetic arithmetic) { CheckIn(arithmetic, c, seed); });
}

TEST(Convolution, ReadsAOneByOneByHand) {
  // Two channels, one row of three pixels: output = 2 * channel 1 - 1.
  Case c;
  c.shape = Square(2, 1, 1, 1);
  c.height = 1;
  c.width = 3;
  c.weight = {0.0f, 2.0f};
  ForEachTarget([&] {
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    const SparseWeight weight = SparseWeightFromDense({1, 2, 1, 1}, c.weight.data());
    const float bias = -1.0f;
    ConvolutionPlan plan;
    ASSERT_TRUE(MakeConvolutionPlan(c.shape, weight, &bias, Epilogue(), 1, 3, options, &plan).ok());
    const AlignedFloats in = Panels(plan.input, 2, 1, {9, 9, 9, 1, 2, 3});
    AlignedFloats out(plan.output.image_stride(1));
    AlignedFloats scratch(plan.scratch_floats());
    RunConvolution(plan, in.data(), nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
    EXPECT_EQ(out.data()[0], 1.0f);
    EXPECT_EQ(out.data()[1], 3.0f);
    EXPECT_EQ(out.data()[2], 5.0f);
  });
}

TEST(Convolution, ShapesOfResNet50) {
  struct Layer {
    int64_t inputs, size, outputs, kernel, stride;
  };
  // Channels are cut to keep the double-precision reference short; sizes, kernels and strides are the network's.
  const Layer layers[] = {{64, 56, 17, 1, 1}, {40, 56, 9, 3, 1}, {40, 56, 9, 3, 2}, {64, 56, 9, 1, 2},
                          {128, 28, 18, 1, 1}, {60, 28, 9, 3, 1}, {60, 28, 9, 3, 2}, {128, 28, 9, 1, 2},
                          {256, 14, 18, 1, 1}, {90, 14, 9, 3, 1}, {90, 14, 9, 3, 2}, {256, 14, 9, 1, 2},
                          {512, 7, 35, 1, 1}, {170, 7, 18, 3, 1}};
  ForEachTarget([&] {
    for (const Layer& layer : layers) {
      for (const bool shift : {true, false}) {
        Case c;
        c.shape = Square(layer.inputs, layer.outputs, layer.kernel, layer.stride);
        c.height = c.width = layer.size;
        c.density = 0.1;
        c.epilogue = Epilogue::Of(Activation::kRelu);
        c.column_shift = shift;
        Check(c, 7);
      }
    }
  });
}

TEST(Convolution, EveryEpilogue) {
  const Epilogue epilogues[] = {Epilogue(),
                                Epilogue::Of(Activation::kRelu),
                                Epilogue::Clip(-0.25f, 0.5f),
                                Epilogue::Of(Activation::kHardSwish),
                                Epilogue::Of(Activation::kSilu),
                                Epilogue::Of(Activation::kGelu),
                                Epilogue::LeakyRelu(0.2f)};
  ForEachTarget([&] {
    for (const Epilogue& epilogue : epilogues) {
      for (const int64_t kernel : {1, 3}) {
        for (const int residual : {0, 1, 2}) {
          Case c;
          c.shape = Square(33, 7, kernel, 1);
          c.height = 9;
          c.width = 13;
          c.epilogue = epilogue;
          c.residual = residual > 0;
          c.in_place = residual > 1;
          c.block_bytes = 8 << 10;
          Check(c, 3);
        }
      }
    }
  });
}

TEST(Convolution, EveryWidthOfARow) {
  ForEachTarget([&] {
    for (int64_t width = 1; width <= 130; ++width) {
      for (const int64_t kernel : {1, 3}) {
        Case c;
        c.shape = Square(3, 5, kernel, 1);
        c.height = 3;
        c.width = width;
        c.density = 0.6;
        c.residual = c.in_place = true;
        Check(c, static_cast<unsigned>(width));
      }
    }
  });
}

// Rows that are cut into two and three segments: every width of the last one.
TEST(Convolution, WideRows) {
  ForEachTarget([&] {
    for (int64_t width = 113; width <= 340; width += width < 240 ? 1 : 7) {
      for (const int64_t stride : {1, 2}) {
        Case c;
        c.shape = Square(7, 5, 3, stride);
        c.height = 3;
        c.width = stride * width;
        c.density = 0.4;
        c.residual = c.in_place = width % 2 == 0;
        c.threads = 2;
        c.block_bytes = width % 3 == 0 ? 4 << 10 : 0;
        Check(c, static_cast<unsigned>(width));
      }
    }
  });
}

TEST(Convolution, NarrowImages) {
  ForEachTarget([&] {
    for (int64_t width = 1; width <= 8; ++width) {
      for (const int64_t height : {2, 8, 31, 60}) {
        for (const bool shift : {true, false}) {
          Case c;
          c.shape = Square(4, 9, 3, 1);
          c.height = height;
          c.width = width;
          c.density = 0.5;
          c.column_shift = shift;
          Check(c, static_cast<unsigned>(width));
        }
      }
    }
  });
}

// Speech and bytes are often images of one column; a lane for each pixel, and not one vector, is what they take.
TEST(Convolution, AColumnIsARowLyingDown) {
  ForEachTarget([&] {
    for (const int64_t groups : {1, 2, 6}) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t height : {2, 31, 112, 113, 508}) {
          for (const int64_t threads : {1, 2, 3}) {
            Case c;
            c.shape.input_channels = 6;
            c.shape.output_channels = 12;
            c.shape.groups = groups;
            c.shape.kernel_height = 5;
            c.shape.stride_height = stride;
            c.shape.dilation_height = groups;
            c.shape.pad_top = 2 * groups;
            c.shape.pad_bottom = 2 * groups + 1;
            c.height = height;
            c.width = 1;
            c.images = 2;
            c.residual = true;
            c.threads = c.workers = threads;
            Check(c, static_cast<unsigned>(height));
          }
        }
      }
    }
    ConvolutionShape shape = Square(6, 12, 5, 1);
    shape.kernel_width = 1;
    shape.pad_left = shape.pad_right = 0;
    const std::vector<float> dense(360, 1.0f);
    const SparseWeight weight = SparseWeightFromDense({12, 6, 5, 1}, dense.data());
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    ConvolutionPlan plan;
    ASSERT_TRUE(MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), 504, 1, options, &plan).ok());
    int64_t lanes = 0;
    for (const TilePlan& tile : plan.tiles) {
      for (const LaneSpan& span : tile.spans) lanes += span.lanes;
    }
    EXPECT_EQ(lanes, 504);
  });
}

TEST(Convolution, EmptyFullAndMixedRows) {
  ForEachTarget([&] {
    for (const double density : {0.0, 1.0}) {
      for (const int64_t kernel : {1, 3}) {
        for (const int64_t threads : {1, 3}) {
          Case c;
          c.shape = Square(20, 11, kernel, 1);
          c.height = c.width = 10;
          c.density = density;
          c.block_bytes = 2 << 10;  // several blocks, so that rows are empty in some
          c.threads = threads;
          Check(c, 11);
        }
      }
    }
    // Rows with 0, 1, 2, ... nonzeros, all in one corner.
    Case c;
    c.shape = Square(16, 16, 1, 1);
    c.height = c.width = 7;
    c.block_bytes = 1;
    c.weight.assign(256, 0.0f);
    for (size_t row = 0; row < 16; ++row) {
      for (size_t column = 0; column < row; ++column) c.weight[row * 16 + column] = 1.0f;
    }
    Check(c, 12);
  });
}

TEST(Convolution, WorkersAndSlicesCoverEverything) {
  ForEachTarget([&] {
    for (const int64_t workers : {1, 2, 3, 7}) {
      for (const int64_t threads : {1, 2, 5}) {
        for (const int64_t kernel : {1, 3}) {
          Case c;
          c.shape = Square(12, 13, kernel, 1);
          c.height = 17;
          c.width = 30;
          c.images = 2;
          c.threads = threads;
          c.workers = workers;
          Check(c, 5);
        }
      }
    }
  });
}

TEST(Convolution, Depthwise) {
  ForEachTarget([&] {
    for (const int64_t stride : {1, 2}) {
      for (const int64_t kernel : {3, 5}) {
        Case c;
        c.shape = Square(70, 70, kernel, stride);
        c.shape.groups = 70;
        c.height = c.width = 28;
        c.density = 1.0;
        c.threads = 2;
        c.epilogue = Epilogue::Clip(0.0f, 6.0f);
        Check(c, 13);
      }
    }
  });
}

TEST(Convolution, ShapesDrawnAtRandom) {
  const int rounds = RoundsOr(150);
  ForEachTarget([&] {
    for (int round = 0; round < rounds; ++round) {
      Draw draw(round);
      Case c;
      if (!c.DrawImages(&draw)) continue;
      c.epilogue = draw(0, 1) == 0 ? Epilogue() : Epilogue::Of(Activation::kRelu);
      c.DrawParts(&draw);
      Check(c, static_cast<unsigned>(round));
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(Convolution, RefusesWhatIsNone) {
  const std::vector<float> ones(4 * 4 * 9, 1.0f);
  const SparseWeight weight = SparseWeightFromDense({4, 4, 3, 3}, ones.data());
  ConvolutionShape shape = Square(4, 4, 3, 1);
  EXPECT_TRUE(CheckConvolution(shape, weight).ok());
  for (int64_t ConvolutionShape::*field :
       {&ConvolutionShape::input_channels, &ConvolutionShape::output_channels, &ConvolutionShape::groups,
        &ConvolutionShape::kernel_height, &ConvolutionShape::kernel_width, &ConvolutionShape::stride_height,
        &ConvolutionShape::stride_width, &ConvolutionShape::dilation_height, &ConvolutionShape::dilation_width}) {
    for (const int64_t wrong : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX}) {
      ConvolutionShape broken = shape;
      broken.*field = wrong;
      EXPECT_FALSE(CheckConvolution(broken, weight).ok());
    }
  }
  ConvolutionShape broken = shape;
  broken.pad_left = -1;
  EXPECT_FALSE(CheckConvolution(broken, weight).ok());
  broken = shape;
  broken.groups = 3;
  EXPECT_FALSE(CheckConvolution(broken, weight).ok());
  broken = shape;
  broken.input_channels = 5;
  EXPECT_FALSE(CheckConvolution(broken, weight).ok());
  broken = shape;
  broken.kernel_width = 1;
  EXPECT_FALSE(CheckConvolution(broken, weight).ok());

  shape.pad_top = shape.pad_bottom = 0;
  EXPECT_FALSE(CheckImage(shape, 2, 5).ok());
  EXPECT_TRUE(CheckImage(shape, 3, 5).ok());
  EXPECT_FALSE(CheckImage(shape, 0, 5).ok());
  EXPECT_FALSE(CheckImage(shape, INT64_MAX, INT64_MAX).ok());
  EXPECT_FALSE(CheckImage(shape, 1 << 24, 1 << 24).ok());
}

TEST(Convolution, RefusesWhatCostsNoBytesInAFile) {
  ConvolutionShape shape = Square(4, 4, 1, 1);
  EXPECT_TRUE(CheckImage(shape, 1 << 13, 1 << 13).ok());
  EXPECT_FALSE(CheckImage(shape, 1 << 13, (1 << 13) + 1).ok());
  shape.input_channels = int64_t{1} << 20;
  EXPECT_TRUE(CheckImage(shape, 64, 64).ok());
  EXPECT_FALSE(CheckImage(shape, 64, 65).ok());

  shape = Square(4, 4, 1, 1);
  shape.pad_top = shape.pad_bottom = 1 << 15;
  ASSERT_TRUE(CheckNumbers(shape).ok());
  EXPECT_TRUE(CheckImage(shape, 1, 1 << 9).ok());
  EXPECT_FALSE(CheckImage(shape, 1, 1 << 11).ok());  // its output: 2^27 pixels
  shape.pad_top = (1 << 16) + 1;
  EXPECT_FALSE(CheckNumbers(shape).ok());

  shape = Square(4, 4, 1, 1);
  shape.kernel_height = shape.kernel_width = 128;
  EXPECT_TRUE(CheckNumbers(shape).ok());
  shape.kernel_width = 129;
  EXPECT_FALSE(CheckNumbers(shape).ok());
}

// A weight of `shape` without nonzeros.
SparseWeight Empty(const std::vector<int64_t>& shape) {
  SparseWeight weight;
  weight.shape = shape;
  weight.rows = shape[0];
  weight.columns = shape[1] * shape[2] * shape[3];
  weight.row_start.assign(static_cast<size_t>(weight.rows) + 1, 0);
  return weight;
}

TEST(Convolution, PlansOfHugeEmptyWeightsAreRefusedOrSmall) {
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  ConvolutionPlan plan;
  const auto made = [&](const ConvolutionShape& shape, int64_t height, int64_t width) {
    const SparseWeight weight = Empty({shape.output_channels, shape.input_channels / shape.groups, shape.kernel_height,
                                       shape.kernel_width});
    EXPECT_TRUE(CheckConvolution(shape, weight).ok());
    EXPECT_TRUE(CheckImage(shape, height, width).ok());
    return MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), height, width, options, &plan).ok();
  };
  // Rows pass the first block and the last one only, though there are hundreds between.
  ASSERT_TRUE(made(Square(70000, 16386, 1, 1), 13, 120));
  ASSERT_GT(plan.blocks.size(), 100u);
  EXPECT_EQ(plan.slices[0].rows.size(), 2u * 16386u);
  // Sums of 2^22 rows, then blocks of 2^24 channels, then a copy for each row of each tile.
  EXPECT_FALSE(made(Square(4, 1 << 22, 1, 1), 7, 7));
  options.threads = 64;
  EXPECT_FALSE(made(Square(1 << 24, 4, 3, 1), 4, 4));
  options.threads = 1;
  ConvolutionShape tall = Square(1, 1, 1, 1);
  tall.kernel_height = 500;
  tall.dilation_height = 30;
  EXPECT_FALSE(made(tall, 1 << 24, 4));
}

TEST(Convolution, OneByOneWithPaddingOnOneSide) {
  ForEachTarget([] {
    for (const int64_t kernel_columns : {1, 2}) {  // and the same side of a kernel that is always staged
      for (int64_t ConvolutionShape::*side : {&ConvolutionShape::pad_top, &ConvolutionShape::pad_left,
                                              &ConvolutionShape::pad_bottom, &ConvolutionShape::pad_right}) {
        Case c;
        c.shape = Square(6, 5, 1, 1);
        c.shape.kernel_width = kernel_columns;
        c.shape.*side = 1;
        c.height = 5;
        c.width = 9;
        c.residual = true;
        Check(c, 17);
      }
    }
  });
}

// What is fast is also right when it is computed the slow way, so results do not tell which way a plan takes.
TEST(Convolution, PlansTakeTheFastWayWhereTheyCan) {
  ForEachTarget([] {
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    const auto plan_of = [&](const ConvolutionShape& shape, int64_t size) {
      const std::vector<float> ones(static_cast<size_t>(shape.output_channels * shape.input_channels * shape.taps()), 1.0f);
      const SparseWeight weight = SparseWeightFromDense(
          {shape.output_channels, shape.input_channels, shape.kernel_height, shape.kernel_width}, ones.data());
      ConvolutionPlan plan;
      EXPECT_TRUE(MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), size, size, options, &plan).ok());
      return plan;
    };
    EXPECT_TRUE(plan_of(Square(4, 3, 1, 1), 14).direct);
    EXPECT_FALSE(plan_of(Square(4, 3, 1, 2), 14).direct);
    for (int64_t ConvolutionShape::*side : {&ConvolutionShape::pad_top, &ConvolutionShape::pad_left,
                                            &ConvolutionShape::pad_bottom, &ConvolutionShape::pad_right}) {
      ConvolutionShape padded = Square(4, 3, 1, 1);
      padded.*side = 1;
      EXPECT_FALSE(plan_of(padded, 14).direct);
    }
    for (const int64_t size : {7, 14, 28, 56, 112}) {
      for (const int64_t stride : {1, 2}) {
        SCOPED_TRACE(testing::Message() << "to " << size << ", stride " << stride);
        const ConvolutionPlan plan = plan_of(Square(4, 3, 3, stride), size * stride);
        EXPECT_EQ(plan.column_shift, options.traits.shift_lanes >= plan.row_lanes);
        EXPECT_FALSE(plan.wide_rows || plan.direct);
        EXPECT_FALSE(plan_of(Square(4, 3, 7, stride), size * stride).column_shift);
      }
    }
    EXPECT_TRUE(plan_of(Square(4, 3, 3, 1), 113).wide_rows);
    EXPECT_FALSE(plan_of(Square(4, 3, 5, 1), 113).wide_rows);
    options.column_shift = false;
    EXPECT_FALSE(plan_of(Square(4, 3, 3, 1), 14).column_shift);
    EXPECT_FALSE(plan_of(Square(4, 3, 3, 1), 113).wide_rows);
  });
}

TEST(Convolution, VeryManyGroupsAreCountedAsTheyAreJoined) {
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  options.block_bytes = 1;  // the fewest channels in a block: 4
  ConvolutionShape shape = Square(1 << 13, 1 << 13, 1, 1);
  shape.groups = shape.input_channels;
  ConvolutionPlan plan;
  const auto made = [&] {
    const SparseWeight weight = Empty({shape.output_channels, shape.input_channels / shape.groups, 1, 1});
    return MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), 1, 1, options, &plan).ok();
  };
  ASSERT_TRUE(made());
  EXPECT_EQ(plan.blocks.size(), size_t{1} << 11);
  // As many channels in fewer groups: four blocks a group, then twice 2^20 in all.
  shape.groups = 1 << 9;
  ASSERT_TRUE(made());
  EXPECT_EQ(plan.blocks.size(), size_t{1} << 11);
  shape.input_channels = 1 << 23;
  shape.groups = shape.output_channels = 2;
  EXPECT_FALSE(made());
}

TEST(Convolution, RefusesAKernelTooLargeForABlock) {
  ConvolutionShape shape = Square(1, 1, 1, 1);
  shape.kernel_height = 900;
  shape.pad_top = 899;
  const std::vector<float> ones(900, 1.0f);
  const SparseWeight weight = SparseWeightFromDense({1, 1, 900, 1}, ones.data());
  ASSERT_TRUE(CheckConvolution(shape, weight).ok());
  ASSERT_TRUE(CheckImage(shape, 900, 112).ok());
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  ConvolutionPlan plan;
  EXPECT_FALSE(MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), 900, 112, options, &plan).ok());
  // Of a lower image most of the kernel's rows read padding only.
  EXPECT_TRUE(MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), 64, 112, options, &plan).ok());
}

ConvolutionShape Dilated(int64_t channels, int64_t height, int64_t width, int64_t dilation) {
  ConvolutionShape shape = Square(channels, channels, 1, 1);
  shape.kernel_height = height;
  shape.kernel_width = width;
  shape.dilation_height = shape.dilation_width = dilation;
  shape.pad_top = shape.pad_bottom = dilation * (height - 1) / 2;
  shape.pad_left = shape.pad_right = dilation * (width - 1) / 2;
  return shape;
}

ConvolutionPlan PlanOfOnes(const ConvolutionShape& shape, int64_t height, int64_t width) {
  const std::vector<float> ones(
      static_cast<size_t>(shape.output_channels * shape.input_channels / shape.groups * shape.taps()), 1.0f);
  const SparseWeight weight =
      SparseWeightFromDense({shape.output_channels, shape.input_channels / shape.groups, shape.kernel_height,
                             shape.kernel_width},
                            ones.data());
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  ConvolutionPlan plan;
  EXPECT_TRUE(MakeConvolutionPlan(shape, weight, nullptr, Epilogue(), height, width, options, &plan).ok());
  return plan;
}

// Floats that are written into the staged channels of all tiles.
int64_t StagedFloats(const ConvolutionPlan& plan) {
  int64_t floats = 0;
  for (const TilePlan& tile : plan.tiles) {
    for (const StageCopy& copy : tile.copies) floats += copy.zeros_left + copy.count + copy.zeros_right;
    for (const StageVector& vector : tile.vectors) floats += vector.pads ? 16 : __builtin_popcount(vector.lanes);
  }
  return floats;
}

// Nonzeros that are multiplied with a row of pixels, over all tiles.
int64_t MultipliedNonzeros(const ConvolutionPlan& plan) {
  int64_t nonzeros = 0;
  for (const TilePlan& tile : plan.tiles) {
    for (int64_t slice = 0; slice < plan.tile_slices; ++slice) {
      const RowSlice& rows = plan.slice(tile, static_cast<size_t>(slice));
      nonzeros += static_cast<int64_t>((rows.entries.size() - 128) / 6);  // without the slack
    }
  }
  return nonzeros;
}

TEST(Convolution, StagesWhatIsRead) {
  ForEachTarget([&] {
    // Rows of 64 pixels, one a tile; 7 kernel rows 17 apart. Output row y reads rows y - 51, y - 34, ... y + 51 as far as
    // there are any.
    const ConvolutionPlan tall = PlanOfOnes(Dilated(1, 7, 1, 17), 64, 64);
    int64_t rows = 0;
    for (int64_t y = 0; y < 64; ++y) {
      for (int64_t kernel_row = -3; kernel_row <= 3; ++kernel_row) {
        const int64_t row = y + 17 * kernel_row;
        rows += row >= 0 && row < 64 ? 1 : 0;
      }
    }
    EXPECT_EQ(StagedFloats(tall), 64 * rows);
    EXPECT_EQ(MultipliedNonzeros(tall), rows);
    // All rows within the image: three rows of three for each tile of three, and no row between.
    const ConvolutionPlan square = PlanOfOnes(Dilated(1, 3, 1, 6), 30, 36);
    EXPECT_LE(StagedFloats(square), 10 * 3 * 3 * 36);
  });
}

TEST(Convolution, TapsThatReadOnlyPaddingTakeNoWork) {
  ForEachTarget([&] {
    // Of nine taps 36 pixels apart only the middle one meets an image of 33 x 33: what is left is 1x1.
    const ConvolutionPlan alone = PlanOfOnes(Dilated(4, 3, 3, 36), 33, 33);
    EXPECT_TRUE(alone.direct);
    EXPECT_EQ(StagedFloats(alone), 0);
    EXPECT_EQ(MultipliedNonzeros(alone), 4 * 4 * static_cast<int64_t>(alone.tiles.size()));
    // 18 apart, the first 15 rows look into the image from the middle row and the lower one, the last 15 from the upper
    // two, and three rows from the middle one only.
    const ConvolutionPlan two = PlanOfOnes(Dilated(1, 3, 3, 18), 33, 33);
    ASSERT_EQ(two.tiles.size(), 11u);
    EXPECT_LE(MultipliedNonzeros(two), 11 * (2 * 3 + 1));
    // Few of the taps of a small kernel read padding only, so there is one stream for all tiles.
    EXPECT_EQ(PlanOfOnes(Dilated(4, 3, 3, 1), 56, 56).slices.size(), 1u);
    EXPECT_EQ(PlanOfOnes(Dilated(4, 3, 3, 1), 112, 112).slices.size(), 1u);
    // No tap meets the image.
    ConvolutionShape nowhere = Dilated(2, 1, 1, 1);
    nowhere.pad_top = 5;
    nowhere.pad_bottom = 0;
    nowhere.stride_height = 7;
    nowhere.kernel_height = 2;
    EXPECT_EQ(MultipliedNonzeros(PlanOfOnes(nowhere, 2, 9)), 0);
  });
}

// Streams of several windows take at most four times as much as one of all taps.
TEST(Convolution, WindowsOfTapsStayFew) {
  for (const int64_t dilation : {5, 9, 17, 31}) {
    const ConvolutionPlan plan = PlanOfOnes(Dilated(2, 9, 9, dilation), 129, 129);
    size_t entries = 0;
    for (const RowSlice& slice : plan.slices) entries += (slice.entries.size() - 128) / 6;
    EXPECT_LE(entries, 4u * 2 * 2 * 81) << dilation;
  }
}

TEST(Convolution, Dilations) {
  ForEachTarget([&] {
    struct Image {
      int64_t height, width, kernel_height, kernel_width, dilation;
    };
    const Image images[] = {{65, 20, 7, 1, 17}, {33, 33, 3, 3, 18},  {33, 33, 3, 3, 36}, {40, 41, 3, 3, 12},
                            {9, 150, 1, 7, 20}, {5, 250, 3, 3, 130}, {60, 60, 3, 3, 6},  {130, 3, 5, 1, 31},
                            {20, 20, 5, 5, 2},  {17, 70, 5, 3, 4}};
    for (const Image& image : images) {
      for (const int64_t threads : {1, 2, 3}) {
        for (const int64_t groups : {1, 2}) {
          Case c;
          c.shape = Dilated(6, image.kernel_height, image.kernel_width, image.dilation);
          c.shape.groups = groups;
          c.height = image.height;
          c.width = image.width;
          c.density = threads == 3 ? 0.05 : 0.5;
          c.residual = c.in_place = threads == 2;
          c.threads = c.workers = threads;
          c.block_bytes = threads == 2 ? 1 : 0;
          Check(c, 21);
        }
      }
    }
  });
}

}  // namespace
}  // namespace gossamer
