#include "kernels/depthwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "tests/draw.h"
#include "tests/guarded_floats.h"
#include "tests/panels.h"
#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

struct Case {
  ConvolutionShape shape;
  int64_t height = 1;
  int64_t width = 1;
  int64_t images = 1;
  double density = 1.0;
  bool bias = true;
  bool residual = false;
  bool in_place = false;
  Epilogue epilogue;
  int64_t parts = 1;
  int64_t workers = 1;

  std::string Describe() const {
    std::ostringstream text;
    text << images << " x " << shape.input_channels << " x " << height << " x " << width << " -> "
         << shape.output_channels << ", kernel " << shape.kernel_height << "x" << shape.kernel_width << ", stride "
         << shape.stride_height << "x" << shape.stride_width << ", dilation " << shape.dilation_height << "x"
         << shape.dilation_width << ", pads " << shape.pad_top << " " << shape.pad_left << " " << shape.pad_bottom
         << " " << shape.pad_right << ", residual " << residual << in_place << ", activation "
         << static_cast<int>(epilogue.activation) << ", parts " << parts << ", workers " << workers;
    return text.str();
  }
};

void Check(const Case& c, unsigned seed) {
  SCOPED_TRACE(c.Describe());
  std::mt19937 random(seed);
  const ConvolutionShape& shape = c.shape;
  const int64_t in_size = shape.input_channels * c.height * c.width;
  const int64_t out_size = shape.output_channels * shape.output_height(c.height) * shape.output_width(c.width);
  const std::vector<float> dense =
      RandomSparse(static_cast<size_t>(shape.output_channels * shape.taps()), c.density, &random);
  const std::vector<float> input = RandomValues(static_cast<size_t>(in_size * c.images), &random);
  const std::vector<float> bias =
      c.bias ? RandomValues(static_cast<size_t>(shape.output_channels), &random) : std::vector<float>();
  const std::vector<float> residual = RandomValues(static_cast<size_t>(out_size * c.images), &random);
  const SparseWeight weight =
      SparseWeightFromDense({shape.output_channels, 1, shape.kernel_height, shape.kernel_width}, dense.data());
  ASSERT_TRUE(IsDepthwise(shape));
  ASSERT_TRUE(CheckConvolution(shape, weight).ok()) << CheckConvolution(shape, weight).problem();
  DepthwisePlan plan;
  const Status made = MakeDepthwisePlan(shape, weight, c.bias ? bias.data() : nullptr, c.epilogue, c.height, c.width,
                                        c.parts, &plan);
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
    RunDepthwise(plan, in.data(), add, out.data(), strides, items * worker / c.workers,
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
      ASSERT_NEAR(got[i], expected.value[i], 1e-5 * (1e-3 + expected.magnitude[i]))
          << "image " << image << ", element " << i;
    }
  }
}

Case SquareCase(int64_t channels, int64_t size, int64_t kernel, int64_t stride) {
  Case c;
  c.shape = Square(channels, channels, kernel, stride);
  c.shape.groups = channels;
  c.height = c.width = size;
  return c;
}

TEST(Depthwise, ReadsThreeByThreeByHand) {
  // The second channel's kernel is the difference of right and left neighbour.
  ForEachTarget([] {
    ConvolutionShape shape = Square(2, 2, 3, 1);
    shape.groups = 2;
    std::vector<float> dense(18, 0.0f);
    dense[9 + 3] = -1.0f;
    dense[9 + 5] = 1.0f;
    const SparseWeight weight = SparseWeightFromDense({2, 1, 3, 3}, dense.data());
    const float bias[] = {7.0f, 0.0f};
    DepthwisePlan plan;
    ASSERT_TRUE(MakeDepthwisePlan(shape, weight, bias, Epilogue(), 1, 4, 1, &plan).ok());
    const AlignedFloats in = Panels(plan.input, 2, 1, {9, 9, 9, 9, 1, 2, 4, 8});
    AlignedFloats out(plan.output.image_stride(2));
    AlignedFloats scratch(plan.scratch_floats());
    RunDepthwise(plan, in.data(), nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
    std::vector<float> got(8);
    PlanarFromPanel(plan.output, 2, out.data(), {0, plan.output.tiles()},
                    {0, 2}, got.data());
    EXPECT_EQ(got, (std::vector<float>{7, 7, 7, 7, 2, 3, 6, -4}));
  });
}

TEST(Depthwise, ShapesOfMobileNet) {
  ForEachTarget([] {
    for (const int64_t size : {112, 56, 28, 14, 7}) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t kernel : {3, 5, 7}) {
          Case c = SquareCase(5, size, kernel, stride);
          c.epilogue = Epilogue::Clip(0.0f, 6.0f);
          c.parts = 2;
          Check(c, 1);
        }
      }
    }
  });
}

TEST(Depthwise, EveryWidthOfARow) {
  ForEachTarget([] {
    for (int64_t width = 1; width <= 130; ++width) {
      for (const int64_t stride : {1, 2}) {
        for (const bool residual : {false, true}) {
          Case c = SquareCase(2, 1, 3, stride);
          c.height = 5;
          c.width = width;
          c.residual = c.in_place = residual;
          Check(c, static_cast<unsigned>(width));
        }
      }
    }
  });
}

TEST(Depthwise, EveryEpilogue) {
  const Epilogue epilogues[] = {Epilogue(),
                                Epilogue::Of(Activation::kRelu),
                                Epilogue::Clip(-0.25f, 0.5f),
                                Epilogue::Of(Activation::kHardSwish),
                                Epilogue::Of(Activation::kSilu),
                                Epilogue::Of(Activation::kGelu),
                                Epilogue::LeakyRelu(0.2f)};
  ForEachTarget([&] {
    for (const Epilogue& epilogue : epilogues) {
      for (const int64_t kernel : {3, 5}) {
        for (const int residual : {0, 1, 2}) {
          Case c = SquareCase(6, 9, kernel, 1);
          c.width = 21;
          c.epilogue = epilogue;
          c.residual = residual > 0;
          c.in_place = residual > 1;
          Check(c, 3);
        }
      }
    }
  });
}

TEST(Depthwise, ShapesDrawnAtRandom) {
  const int rounds = RoundsOr(200);
  ForEachTarget([&] {
    for (int round = 0; round < rounds; ++round) {
      Draw draw(round);
      Case c;
      c.shape.groups = c.shape.input_channels = draw(2, 12);
      c.shape.output_channels = c.shape.groups * draw(1, 3);
      const bool common = draw(0, 1) == 0;
      c.shape.kernel_height = common ? 3 : draw(1, 6);
      c.shape.kernel_width = common ? 3 : draw(1, 7);
      c.shape.stride_height = draw(1, 3);
      c.shape.stride_width = draw(1, 3);
      const int64_t farthest = draw(0, 3) == 0 ? 20 : 3;
      c.shape.dilation_height = draw(0, 2) == 0 ? draw(1, farthest) : 1;
      c.shape.dilation_width = draw(0, 2) == 0 ? draw(1, farthest) : 1;
      const int64_t reach_height = c.shape.dilation_height * (c.shape.kernel_height - 1) + 1;
      const int64_t reach_width = c.shape.dilation_width * (c.shape.kernel_width - 1) + 1;
      c.shape.pad_top = draw(0, reach_height);
      c.shape.pad_bottom = draw(0, reach_height);
      c.shape.pad_left = draw(0, 1) == 0 ? 1 : draw(0, reach_width);
      c.shape.pad_right = draw(0, reach_width);
      c.height = draw(1, 40);
      c.width = draw(0, 4) == 0 ? draw(100, 260) : draw(1, 60);
      if (!CheckImage(c.shape, c.height, c.width).ok()) continue;
      c.images = draw(1, 2);
      c.density = std::vector<double>{0.0, 0.3, 1.0}[static_cast<size_t>(draw(0, 2))];
      c.bias = draw(0, 3) != 0;
      c.residual = draw(0, 2) == 0;
      c.in_place = c.residual && draw(0, 1) == 0;
      c.epilogue = draw(0, 1) == 0 ? Epilogue() : Epilogue::Of(Activation::kRelu);
      c.parts = draw(1, 4);
      c.workers = draw(1, 3);
      Check(c, static_cast<unsigned>(round));
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(Depthwise, ReadsNothingBehindTheImage) {
  // Channels of small images are shorter than a vector: what lies behind the last but one may be the end of memory.
  ForEachTarget([] {
    for (int64_t size = 1; size <= 6; ++size) {
      for (const int64_t stride : {1, 2}) {
        ConvolutionShape shape = Square(4, 4, 3, stride);
        shape.groups = 4;
        const std::vector<float> ones(36, 1.0f);
        const SparseWeight weight = SparseWeightFromDense({4, 1, 3, 3}, ones.data());
        DepthwisePlan plan;
        ASSERT_TRUE(MakeDepthwisePlan(shape, weight, nullptr, Epilogue(), size, size, 1, &plan).ok());
        const std::vector<float> image(static_cast<size_t>(4 * size * size), 1.0f);
        const AlignedFloats panel = Panels(plan.input, 4, 1, image);
        // Without the room behind the last tile, which a tensor need not have.
        const GuardedFloats in(plan.input.image_floats(4));
        std::copy_n(panel.data(), plan.input.image_floats(4), in.get());
        AlignedFloats out(plan.output.image_stride(4));
        AlignedFloats scratch(plan.scratch_floats());
        RunDepthwise(plan, in.get(), nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
        // The middle pixel sees the whole kernel.
        if (size == 3 && stride == 1) {
          EXPECT_EQ(out.data()[4], 9.0f);
        }
      }
    }
  });
}

Case DilatedCase(int64_t height, int64_t width, int64_t kernel, int64_t dilation) {
  Case c = SquareCase(2, 1, kernel, 1);
  c.shape.dilation_height = c.shape.dilation_width = dilation;
  c.shape.pad_top = c.shape.pad_left = c.shape.pad_bottom = c.shape.pad_right = dilation * (kernel - 1) / 2;
  c.height = height;
  c.width = width;
  return c;
}

DepthwisePlan PlanOfOnes(const Case& c) {
  const std::vector<float> ones(static_cast<size_t>(c.shape.output_channels * c.shape.taps()), 1.0f);
  const SparseWeight weight =
      SparseWeightFromDense({c.shape.output_channels, 1, c.shape.kernel_height, c.shape.kernel_width}, ones.data());
  DepthwisePlan plan;
  EXPECT_TRUE(MakeDepthwisePlan(c.shape, weight, nullptr, Epilogue(), c.height, c.width, 1, &plan).ok());
  return plan;
}

TEST(Depthwise, Dilations) {
  ForEachTarget([] {
    for (const int64_t dilation : {2, 7, 18, 36, 200}) {
      for (const int64_t width : {20, 65, 130}) {
        Check(DilatedCase(33, width, 3, dilation), 5);
        Check(DilatedCase(70, width, 5, dilation), 6);
      }
    }
  });
}

TEST(Depthwise, StagesWhatIsRead) {
  // Rows of 64 pixels, one a tile: an output row reads its own row and, where there are such, those 20 above and below.
  const DepthwisePlan plan = PlanOfOnes(DilatedCase(64, 64, 3, 20));
  int64_t staged = 0;
  int64_t taps = 0;
  for (size_t tile = 0; tile < 64; ++tile) {
    for (const StageCopy& copy : plan.tiles[tile].copies) staged += copy.zeros_left + copy.count + copy.zeros_right;
    taps += plan.tile_taps[tile].last - plan.tile_taps[tile].first;
  }
  EXPECT_EQ(staged, (64 + 44 + 44) * (64 + 2 * 20));
  EXPECT_EQ(taps, (64 + 44 + 44) * 3);
  // Of nine taps 36 pixels apart only the middle one meets an image of 33 x 33.
  EXPECT_EQ(PlanOfOnes(DilatedCase(33, 33, 3, 36)).tap_offsets.size(), 1u);
}

TEST(Depthwise, RefusesKernelsBeyondReason) {
  const Case c = DilatedCase(8192, 8192, 128, 64);
  const std::vector<float> ones(2 * 128 * 128, 1.0f);
  const SparseWeight weight = SparseWeightFromDense({2, 1, 128, 128}, ones.data());
  ASSERT_TRUE(CheckConvolution(c.shape, weight).ok());
  ASSERT_TRUE(CheckImage(c.shape, 8192, 8192).ok());
  DepthwisePlan plan;
  EXPECT_FALSE(MakeDepthwisePlan(c.shape, weight, nullptr, Epilogue(), 8192, 8192, 1, &plan).ok());
}

}  // namespace
}  // namespace gossamer
