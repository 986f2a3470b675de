#include "kernels/stem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

struct Case {
  ConvolutionShape shape;
  int64_t height;
  int64_t width;
  bool max_pool;
  Epilogue epilogue;
};

ConvolutionShape Shape(int64_t inputs, int64_t outputs, int64_t kernel, int64_t stride, int64_t pad) {
  ConvolutionShape shape;
  shape.input_channels = inputs;
  shape.output_channels = outputs;
  shape.kernel_height = shape.kernel_width = kernel;
  shape.stride_height = shape.stride_width = stride;
  shape.pad_top = shape.pad_left = shape.pad_bottom = shape.pad_right = pad;
  return shape;
}

// Pooling of 3 x 3, stride 2, padding 1. The error allowed at a pooled pixel is the largest of the pixels it looks at.
ReferenceResult Pooled(const ReferenceResult& full, int64_t channels, int64_t height, int64_t width) {
  ReferenceResult result;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y = 0; y < (height - 1) / 2 + 1; ++y) {
      for (int64_t x = 0; x < (width - 1) / 2 + 1; ++x) {
        double value = -std::numeric_limits<double>::infinity(), magnitude = 0.0;
        for (int64_t row = std::max<int64_t>(0, 2 * y - 1); row <= std::min(height - 1, 2 * y + 1); ++row) {
          for (int64_t column = std::max<int64_t>(0, 2 * x - 1); column <= std::min(width - 1, 2 * x + 1); ++column) {
            const size_t at = static_cast<size_t>((c * height + row) * width + column);
            value = std::max(value, full.value[at]);
            magnitude = std::max(magnitude, full.magnitude[at]);
          }
        }
        result.value.push_back(value);
        result.magnitude.push_back(magnitude);
      }
    }
  }
  return result;
}

// Each `parts` of the strips is computed by itself, as by a thread of its own.
void CheckStem(const Case& c, bool may_transform, int64_t parts, unsigned seed) {
  std::mt19937 random(seed);
  const ConvolutionShape& shape = c.shape;
  const std::vector<float> weight =
      RandomValues(static_cast<size_t>(shape.output_channels * shape.input_channels * shape.taps()), &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(shape.output_channels), &random);
  const std::vector<float> image =
      RandomValues(static_cast<size_t>(shape.input_channels * c.height * c.width), &random);
  const int64_t rows = shape.output_height(c.height), columns = shape.output_width(c.width);
  ReferenceResult expected = ReferenceConvolution(shape, weight, bias, nullptr, c.epilogue, c.height, c.width,
                                                  image.data());
  if (c.max_pool) expected = Pooled(expected, shape.output_channels, rows, columns);

  StemOptions options;
  options.traits = CurrentStemTraits();
  options.max_pool = c.max_pool;
  options.may_transform = may_transform;
  StemPlan plan;
  const Status status =
      MakeStemPlan(shape, weight.data(), bias.data(), c.epilogue, c.height, c.width, options, &plan);
  ASSERT_TRUE(status.ok()) << status.problem();
  // What was in the panel and in the scratch must not matter.
  const float nothing = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> panel(static_cast<size_t>(plan.output.image_floats(shape.output_channels)), nothing);
  std::vector<std::vector<float>> scratch;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = plan.strips() * part / parts, last = plan.strips() * (part + 1) / parts;
    if (first == last) continue;
    scratch.emplace_back(static_cast<size_t>(plan.scratch_floats()), nothing);
    RunStem(plan, image.data(), panel.data(), first, last, scratch.back().data());
    if (!c.max_pool || first == 0) continue;
    RunStemSeam(plan, first, scratch[scratch.size() - 2].data(), scratch.back().data(), panel.data());
  }
  for (int64_t tile = 0; tile < plan.output.tiles(); ++tile) {
    const int64_t pixels = plan.output.tile(tile).pixels();
    for (int64_t i = pixels; i < plan.output.pitch; ++i) {
      EXPECT_EQ(panel[static_cast<size_t>(tile * shape.output_channels * plan.output.pitch + i)], 0.0f)
          << "leftover " << i << " of tile " << tile;
    }
  }
  std::vector<float> got(expected.value.size());
  PlanarFromPanel(plan.output, shape.output_channels, panel.data(), {0, plan.output.tiles()},
                  {0, shape.output_channels}, got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected.value[i], 1e-5 * (1e-3 + expected.magnitude[i])) << "element " << i;
  }
}

void CheckAllWays(const Case& c) {
  unsigned seed = 1;
  for (const bool may_transform : {true, false}) {
    for (const int64_t parts : {1, 2, 3}) CheckStem(c, may_transform, parts, seed++);
  }
}

TEST(Stem, ResidualNetwork) {
  ForEachTarget([] { CheckAllWays({Shape(3, 64, 7, 2, 3), 64, 64, true, Epilogue::Of(Activation::kRelu)}); });
}

TEST(Stem, OddSizes) {
  ForEachTarget([] {
    for (const int64_t size : {1, 2, 3, 7, 13, 29, 30, 31, 33}) {
      for (const bool max_pool : {false, true}) {
        SCOPED_TRACE(size);
        CheckAllWays({Shape(3, 17, 7, 2, 3), size, size + 4, max_pool, Epilogue::Of(Activation::kRelu)});
      }
    }
  });
}

TEST(Stem, KernelsStridesAndActivations) {
  ForEachTarget([] {
    for (const int64_t kernel : {1, 2, 3, 4, 5, 8, 11}) {
      for (const int64_t stride : {1, 2}) {
        SCOPED_TRACE(kernel);
        CheckAllWays({Shape(2, 5, kernel, stride, kernel / 2), 19, 26, stride == 1, Epilogue()});
        CheckAllWays({Shape(1, 3, kernel, stride, 0), 23, 17, false, Epilogue::Of(Activation::kHardSwish)});
        CheckAllWays({Shape(1, 3, kernel, stride, 0), 23, 17, false, Epilogue::LeakyRelu(-0.5f)});
      }
    }
  });
}

TEST(Stem, RowsOfSeveralSegments) {
  ForEachTarget([] {
    CheckAllWays({Shape(3, 9, 3, 1, 1), 9, 230, false, Epilogue::Clip(-0.5f, 0.25f)});
    CheckAllWays({Shape(3, 9, 3, 1, 1), 9, 461, true, Epilogue::Clip(-0.5f, 0.25f)});
  });
}

TEST(Stem, UnequalStrideAndPadding) {
  ForEachTarget([] {
    ConvolutionShape shape = Shape(3, 6, 3, 1, 1);
    shape.kernel_width = 5;
    shape.stride_height = 4;
    shape.stride_width = 2;
    shape.pad_top = 2;
    shape.pad_left = 0;
    CheckAllWays({shape, 21, 22, true, Epilogue()});
  });
}

TEST(Stem, TransformsOnlyWhereItSavesProducts) {
  StemOptions options;
  options.traits = CurrentStemTraits();
  const auto transformed = [&](const ConvolutionShape& shape) {
    const std::vector<float> weight(static_cast<size_t>(shape.output_channels * shape.input_channels * shape.taps()));
    StemPlan plan;
    EXPECT_TRUE(MakeStemPlan(shape, weight.data(), nullptr, Epilogue(), 32, 32, options, &plan).ok());
    return plan.transformed;
  };
  EXPECT_TRUE(transformed(Shape(3, 8, 7, 2, 3)));
  EXPECT_TRUE(transformed(Shape(3, 8, 3, 1, 1)));
  EXPECT_FALSE(transformed(Shape(3, 8, 3, 2, 1)));
  EXPECT_FALSE(transformed(Shape(3, 8, 11, 2, 2)));
  EXPECT_FALSE(transformed(Shape(3, 8, 1, 1, 0)));
}

TEST(Stem, RefusesWhatItCannotDo) {
  StemOptions options;
  options.traits = CurrentStemTraits();
  const std::vector<float> weight(1000);
  StemPlan plan;
  const auto refused = [&](const ConvolutionShape& shape, int64_t width) {
    return !MakeStemPlan(shape, weight.data(), nullptr, Epilogue(), 32, width, options, &plan).ok();
  };
  ConvolutionShape shape = Shape(2, 2, 3, 3, 1);
  EXPECT_TRUE(refused(shape, 32));
  shape = Shape(2, 2, 3, 1, 1);
  shape.dilation_width = 2;
  EXPECT_TRUE(refused(shape, 32));
  shape = Shape(2, 2, 3, 1, 1);
  shape.groups = 2;
  EXPECT_TRUE(refused(shape, 32));
  EXPECT_TRUE(refused(Shape(2, 2, 3, 1, 1), int64_t{1} << 24));
}

}  // namespace
}  // namespace gossamer
