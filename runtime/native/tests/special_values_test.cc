// NaN and infinities: an output is NaN where a kept weight reads one, and nowhere else; likewise infinite. On every
// instruction set, by every way through the kernels, with every epilogue.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/convolution.h"
#include "kernels/depthwise.h"
#include "kernels/fully_connected.h"
#include "kernels/matmul.h"
#include "kernels/max_pool.h"
#include "kernels/stem.h"
#include "tests/panels.h"
#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const Epilogue kEpilogues[] = {Epilogue(),
                               Epilogue::Of(Activation::kRelu),
                               Epilogue::Clip(-0.25f, 0.5f),
                               Epilogue::Of(Activation::kHardSwish),
                               Epilogue::Of(Activation::kSilu),
                               Epilogue::Of(Activation::kGelu),
                               Epilogue::LeakyRelu(0.2f)};

// Random numbers, and one special one in every `every`.
std::vector<float> SpecialValues(size_t count, size_t every, std::mt19937* random) {
  std::vector<float> values = RandomValues(count, random);
  for (size_t i = (*random)() % every; i < count; i += 1 + (*random)() % (2 * every)) {
    values[i] = std::vector<float>{kNaN, kInfinity, -kInfinity}[(*random)() % 3];
  }
  return values;
}

void ExpectSame(const float* got, const ReferenceResult& expected) {
  for (size_t i = 0; i < expected.value.size(); ++i) {
    const double value = expected.value[i];
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(got[i])) << "element " << i << ": " << got[i];
    } else if (std::isinf(value)) {
      ASSERT_EQ(got[i], value) << "element " << i;
    } else {
      const double magnitude = std::isfinite(expected.magnitude[i]) ? expected.magnitude[i] : 10.0;
      ASSERT_NEAR(got[i], value, 1e-5 * (1e-3 + magnitude)) << "element " << i;
    }
  }
}

void CheckConvolution(const ConvolutionShape& shape, int64_t height, int64_t width, const Epilogue& epilogue,
                      bool residual, int64_t block_bytes, bool column_shift) {
  SCOPED_TRACE(testing::Message() << shape.input_channels << " x " << height << " x " << width << ", kernel "
                                  << shape.kernel_height << "x" << shape.kernel_width << ", stride "
                                  << shape.stride_height << ", groups " << shape.groups << ", activation "
                                  << static_cast<int>(epilogue.activation) << ", residual " << residual);
  std::mt19937 random(static_cast<unsigned>(height * width + shape.input_channels));
  const bool depthwise = IsDepthwise(shape);
  const int64_t columns = shape.input_channels / shape.groups * shape.taps();
  const std::vector<float> dense =
      RandomSparse(static_cast<size_t>(shape.output_channels * columns), depthwise ? 1.0 : 0.2, &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(shape.output_channels), &random);
  const size_t outputs =
      static_cast<size_t>(shape.output_channels * shape.output_height(height) * shape.output_width(width));
  const std::vector<float> input =
      SpecialValues(static_cast<size_t>(shape.input_channels * height * width), 40, &random);
  const std::vector<float> other = SpecialValues(outputs, 40, &random);
  const SparseWeight weight = SparseWeightFromDense(
      {shape.output_channels, shape.input_channels / shape.groups, shape.kernel_height, shape.kernel_width}, dense.data());
  std::vector<float> got(outputs);
  const auto run = [&](const auto& plan, const auto& function) {
    const AlignedFloats in = Panels(plan.input, shape.input_channels, 1, input);
    const AlignedFloats add = Panels(plan.output, shape.output_channels, 1, other);
    AlignedFloats out(plan.output.image_stride(shape.output_channels));
    AlignedFloats scratch(plan.scratch_floats());
    std::fill_n(scratch.data(), plan.scratch_floats(), kNaN);  // what was there before must not matter
    function(plan, in.data(), residual ? add.data() : nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
    PlanarFromPanel(plan.output, shape.output_channels, out.data(), {0, plan.output.tiles()}, {0, shape.output_channels},
                    got.data());
  };
  if (depthwise) {
    DepthwisePlan plan;
    ASSERT_TRUE(MakeDepthwisePlan(shape, weight, bias.data(), epilogue, height, width, 1, &plan).ok());
    run(plan, RunDepthwise);
  } else {
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    options.block_bytes = block_bytes;
    options.column_shift = column_shift;
    ConvolutionPlan plan;
    ASSERT_TRUE(MakeConvolutionPlan(shape, weight, bias.data(), epilogue, height, width, options, &plan).ok());
    run(plan, RunConvolution);
  }
  ExpectSame(got.data(), ReferenceConvolution(shape, dense, bias, residual ? other.data() : nullptr, epilogue, height,
                                              width, input.data()));
}

TEST(SpecialValues, Convolutions) {
  ForEachTarget([] {
    for (const Epilogue& epilogue : kEpilogues) {
      for (const bool residual : {false, true}) {
        for (const int64_t block_bytes : {0, 4 << 10}) {
          CheckConvolution(Square(21, 18, 1, 1), 14, 14, epilogue, residual, block_bytes, true);  // as it lies
          CheckConvolution(Square(21, 18, 1, 1), 7, 7, epilogue, residual, block_bytes, true);
          CheckConvolution(Square(6, 9, 3, 1), 14, 14, epilogue, residual, block_bytes, true);  // shifted columns
          CheckConvolution(Square(6, 9, 3, 2), 14, 14, epilogue, residual, block_bytes, true);
          CheckConvolution(Square(6, 9, 3, 1), 9, 13, epilogue, residual, block_bytes, false);  // shifted copies
          CheckConvolution(Square(4, 5, 3, 1), 3, 150, epilogue, residual, block_bytes, true);  // rows cut into segments
          CheckConvolution(Square(6, 9, 5, 3), 11, 9, epilogue, residual, block_bytes, true);
          // Dilated, so that tiles leave out taps that read padding only; along one column.
          ConvolutionShape dilated = Square(6, 9, 3, 1);
          dilated.dilation_height = dilated.dilation_width = 6;
          dilated.pad_top = dilated.pad_left = dilated.pad_bottom = dilated.pad_right = 6;
          CheckConvolution(dilated, 15, 15, epilogue, residual, block_bytes, true);
          dilated.kernel_width = 1;
          dilated.pad_left = dilated.pad_right = 0;
          CheckConvolution(dilated, 40, 1, epilogue, residual, block_bytes, true);
        }
      }
    }
  });
}

TEST(SpecialValues, DepthwiseConvolutions) {
  ForEachTarget([] {
    for (const Epilogue& epilogue : kEpilogues) {
      for (const bool residual : {false, true}) {
        for (const int64_t kernel : {3, 5}) {
          for (const int64_t stride : {1, 2}) {
            ConvolutionShape shape = Square(5, 5, kernel, stride);
            shape.groups = 5;
            CheckConvolution(shape, 9, 37, epilogue, residual, 0, true);
          }
        }
      }
    }
  });
}

// A weight whose rows have very different numbers of nonzeros: those that share a register or a bundle must not disturb
// each other. Rows without any are the bias, whatever the input.
std::vector<float> UnequalRows(int64_t outputs, int64_t inputs, std::mt19937* random) {
  std::vector<float> dense = RandomValues(static_cast<size_t>(outputs * inputs), random);
  for (int64_t row = 0; row < outputs; ++row) {
    for (int64_t column = 0; column < inputs; ++column) {
      const int64_t kept = row % 3 == 0 ? 0 : row % 7;
      if ((column * 5 + row) % inputs >= kept) dense[static_cast<size_t>(row * inputs + column)] = 0.0f;
    }
  }
  return dense;
}

TEST(SpecialValues, ProductsOfUnequalRows) {
  ForEachTarget([] {
    for (const Epilogue& epilogue : kEpilogues) {
      for (const int64_t tokens : {1, 7, 70}) {
        for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u}) {
          const bool residual = seed % 2 == 0;
          std::mt19937 random(seed);
          const int64_t inputs = 24, outputs = 45;
          const std::vector<float> dense = UnequalRows(outputs, inputs, &random);
          const std::vector<float> bias = RandomValues(static_cast<size_t>(outputs), &random);
          const std::vector<float> input = SpecialValues(static_cast<size_t>(tokens * inputs), 9, &random);
          const std::vector<float> other = SpecialValues(static_cast<size_t>(tokens * outputs), 9, &random);
          const SparseWeight weight = SparseWeightFromDense({outputs, inputs}, dense.data());
          const float* add = residual ? other.data() : nullptr;
          std::vector<float> output(static_cast<size_t>(tokens * outputs));
          if (tokens == 1) {
            FullyConnectedPlan plan;
            ASSERT_TRUE(MakeFullyConnectedPlan(weight, bias.data(), epilogue, 2, &plan).ok());
            RunFullyConnected(plan, input.data(), add, output.data(), 0, plan.items());
          } else {
            PlanOptions options;
            options.traits = CurrentKernelTraits();
            MatMulPlan plan;
            ASSERT_TRUE(MakeMatMulPlan(weight, bias.data(), epilogue, options, &plan).ok());
            AlignedFloats scratch(plan.scratch_floats());
            RunMatMul(plan, tokens, input.data(), add, output.data(), 0, plan.items(tokens), scratch.data());
          }
          ConvolutionShape shape;
          shape.input_channels = inputs;
          shape.output_channels = outputs;
          for (int64_t token = 0; token < tokens; ++token) {
            SCOPED_TRACE(testing::Message() << "token " << token << " of " << tokens << ", activation "
                                            << static_cast<int>(epilogue.activation));
            ExpectSame(output.data() + token * outputs,
                       ReferenceConvolution(shape, dense, bias, residual ? add + token * outputs : nullptr, epilogue, 1, 1,
                                            input.data() + token * inputs));
          }
        }
      }
    }
  });
}

TEST(SpecialValues, RowsMadeLongerStayExact) {
  // One nonzero beside sixty: the one is written in parts whose sum it is.
  ForEachTarget([] {
    const int64_t inputs = 64;
    std::vector<float> dense(static_cast<size_t>(4 * inputs), 0.0f);
    for (int64_t column = 0; column < 60; ++column) dense[static_cast<size_t>(3 * inputs + column)] = 1.0f;
    dense[5] = 0.7f;                 // has halves
    dense[inputs + 6] = 1e-45f;      // has none
    dense[2 * inputs + 7] = 3e38f;
    const SparseWeight weight = SparseWeightFromDense({4, inputs, 1, 1}, dense.data());
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    ConvolutionPlan plan;
    ASSERT_TRUE(MakeConvolutionPlan(Square(inputs, 4, 1, 1), weight, nullptr, Epilogue(), 1, 4, options, &plan).ok());
    const std::vector<float> ones(static_cast<size_t>(4 * inputs), 1.0f);
    const AlignedFloats in = Panels(plan.input, inputs, 1, ones);
    AlignedFloats out(plan.output.image_stride(4));
    AlignedFloats scratch(plan.scratch_floats());
    RunConvolution(plan, in.data(), nullptr, out.data(), {}, 0, plan.items(1), scratch.data());
    EXPECT_EQ(out.data()[0], 0.7f);
    EXPECT_EQ(out.data()[plan.output.pitch], 1e-45f);
    EXPECT_EQ(out.data()[2 * plan.output.pitch], 3e38f);
    EXPECT_EQ(out.data()[3 * plan.output.pitch], 60.0f);
  });
}

// Pooling of 3 x 3, stride 2, padding 1, in which NaN wins.
ReferenceResult Pooled(const ReferenceResult& full, int64_t channels, int64_t height, int64_t width) {
  ReferenceResult result;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y = 0; y < (height - 1) / 2 + 1; ++y) {
      for (int64_t x = 0; x < (width - 1) / 2 + 1; ++x) {
        double value = -std::numeric_limits<double>::infinity(), magnitude = 0.0;
        for (int64_t row = std::max<int64_t>(0, 2 * y - 1); row <= std::min(height - 1, 2 * y + 1); ++row) {
          for (int64_t column = std::max<int64_t>(0, 2 * x - 1); column <= std::min(width - 1, 2 * x + 1); ++column) {
            const size_t at = static_cast<size_t>((c * height + row) * width + column);
            if (std::isnan(value) || std::isnan(full.value[at])) {
              value = kNaN;
            } else {
              value = std::max(value, full.value[at]);
            }
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

void CheckStem(const ConvolutionShape& shape, int64_t height, int64_t width, bool max_pool, const Epilogue& epilogue,
               const std::vector<float>& weight, const std::vector<float>& image, int64_t parts) {
  const std::vector<float> bias(static_cast<size_t>(shape.output_channels), 0.125f);
  StemOptions options;
  options.traits = CurrentStemTraits();
  options.max_pool = max_pool;
  StemPlan plan;
  ASSERT_TRUE(MakeStemPlan(shape, weight.data(), bias.data(), epilogue, height, width, options, &plan).ok());
  AlignedFloats panel(plan.output.image_stride(shape.output_channels));
  std::vector<AlignedFloats> scratch;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = plan.strips() * part / parts, last = plan.strips() * (part + 1) / parts;
    scratch.emplace_back(plan.scratch_floats());
    std::fill_n(scratch.back().data(), plan.scratch_floats(), kNaN);
    RunStem(plan, image.data(), panel.data(), first, last, scratch.back().data());
    ASSERT_TRUE(scratch.back().guard_is_untouched());
    if (max_pool && part > 0) RunStemSeam(plan, first, scratch[scratch.size() - 2].data(), scratch.back().data(), panel.data());
  }
  ReferenceResult expected = ReferenceConvolution(shape, weight, bias, nullptr, epilogue, height, width, image.data());
  if (max_pool) {
    expected = Pooled(expected, shape.output_channels, shape.output_height(height), shape.output_width(width));
  }
  std::vector<float> got(expected.value.size());
  PlanarFromPanel(plan.output, shape.output_channels, panel.data(), {0, plan.output.tiles()}, {0, shape.output_channels},
                  got.data());
  ExpectSame(got.data(), expected);
}

TEST(SpecialValues, Stems) {
  ForEachTarget([] {
    for (const Epilogue& epilogue : kEpilogues) {
      for (const bool max_pool : {false, true}) {
        for (const int64_t kernel : {3, 7}) {
          for (const int64_t parts : {1, 3}) {
            SCOPED_TRACE(testing::Message() << "kernel " << kernel << ", pooled " << max_pool << ", activation "
                                            << static_cast<int>(epilogue.activation) << ", parts " << parts);
            std::mt19937 random(static_cast<unsigned>(kernel));
            ConvolutionShape shape = Square(3, 9, kernel, kernel == 7 ? 2 : 1);
            const std::vector<float> weight = RandomValues(static_cast<size_t>(9 * 3 * shape.taps()), &random);
            // Strips with one special pixel, and strips between with ordinary ones.
            std::vector<float> image = RandomValues(size_t{3 * 61 * 30}, &random);
            for (const int64_t row : {0, 25, 26, 60}) {
              image[static_cast<size_t>(row * 30 + row % 30)] = row == 25 ? -kInfinity : row == 60 ? kInfinity : kNaN;
            }
            CheckStem(shape, 61, 30, max_pool, epilogue, weight, image, parts);
          }
        }
      }
    }
  });
}

TEST(SpecialValues, StemsOfHugeNumbers) {
  // Sums that a float holds, and the transform's do not.
  ForEachTarget([] {
    std::mt19937 random(1);
    const ConvolutionShape shape = Square(1, 4, 3, 1);
    std::vector<float> weight = RandomValues(36, &random);
    std::vector<float> image = RandomValues(144, &random);
    image[70] = 3e38f;
    CheckStem(shape, 12, 12, false, Epilogue(), weight, image, 1);
    image[70] = 1.0f;
    weight[13] = 2e38f;
    CheckStem(shape, 12, 12, false, Epilogue(), weight, image, 1);
    weight[13] = kInfinity;
    weight[30] = kNaN;
    // Padding is multiplied as zeros, and 0 x infinity is NaN: look at what no padding reaches.
    ConvolutionShape bare = shape;
    bare.pad_top = bare.pad_left = bare.pad_bottom = bare.pad_right = 0;
    CheckStem(bare, 12, 12, false, Epilogue(), weight, image, 1);
    CheckStem(bare, 12, 12, true, Epilogue(), weight, image, 1);
  });
}

TEST(SpecialValues, ActivationsOverTheWholeRangeOfFloats) {
  const Epilogue epilogues[] = {Epilogue(),
                                Epilogue::Of(Activation::kRelu),
                                Epilogue::Of(Activation::kHardSwish),
                                Epilogue::Of(Activation::kSilu),
                                Epilogue::Of(Activation::kGelu),
                                Epilogue::LeakyRelu(0.2f),
                                Epilogue::LeakyRelu(-3.0f),
                                Epilogue::LeakyRelu(0.0f)};
  std::vector<float> values = {0.0f, -0.0f, 1e-45f, -1e-45f, 3.4028235e38f, -3.4028235e38f, kInfinity, -kInfinity, kNaN};
  for (float magnitude = 1e-44f; magnitude < 3e38f; magnitude *= 1.37f) {
    values.push_back(magnitude);
    values.push_back(-magnitude);
  }
  for (float value = -110.0f; value < 20.0f; value += 0.37f) values.push_back(value);
  const int64_t count = static_cast<int64_t>(values.size());
  ForEachTarget([&] {
    for (const Epilogue& epilogue : epilogues) {
      const Activation activation = epilogue.activation;
      // A product with the identity is nothing but its epilogue. A column of tokens, and one token.
      const float one = 1.0f;
      PlanOptions options;
      options.traits = CurrentKernelTraits();
      MatMulPlan plan;
      ASSERT_TRUE(MakeMatMulPlan(SparseWeightFromDense({1, 1}, &one), nullptr, epilogue, options, &plan).ok());
      std::vector<float> output(values.size());
      AlignedFloats scratch(plan.scratch_floats());
      RunMatMul(plan, count, values.data(), nullptr, output.data(), 0, plan.items(count), scratch.data());
      for (size_t i = 0; i < values.size(); ++i) {
        const double x = values[i];
        double expected = ReferenceActivation(epilogue, x);
        SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(activation) << " of " << x << ": " << output[i]
                                        << ", expected " << expected);
        if (std::isnan(expected)) {
          EXPECT_TRUE(std::isnan(output[i]));
        } else if (std::isinf(expected) || std::abs(expected) > std::numeric_limits<float>::max()) {
          EXPECT_EQ(output[i], std::copysign(kInfinity, expected));
        } else {
          // Gelu's error is one of 1 + erf, as ONNX Runtime's is, silu's one of the quotient.
          const double relative = activation == Activation::kGelu ? 3e-7 * std::abs(x) : 3e-7 * std::abs(expected);
          EXPECT_NEAR(output[i], expected, std::min(relative + 1e-36, 1e-6 * (std::abs(expected) + 1.0)));
        }
        // Those with a gate are 0 or less on the negative side, and -0 where it is closed.
        if (x < -100.0 && std::isfinite(x) && activation > Activation::kClip && activation != Activation::kLeakyRelu) {
          EXPECT_EQ(output[i], 0.0f);
          EXPECT_TRUE(std::signbit(output[i]));
        }
      }
    }
  });
}

}  // namespace
}  // namespace gossamer
