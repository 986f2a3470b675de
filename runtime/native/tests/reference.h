// What the kernels should compute, in double precision and in the plainest way.
#ifndef GOSSAMER_TESTS_REFERENCE_H_
#define GOSSAMER_TESTS_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/convolution_plan.h"
#include "kernels/epilogue.h"

namespace gossamer {

inline double ReferenceActivation(const Epilogue& epilogue, double x) {
  switch (epilogue.activation) {
    case Activation::kHardSwish:
      return x * std::clamp(x + 3.0, 0.0, 6.0) / 6.0;
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kLeakyRelu:
      return x < 0.0 ? epilogue.slope * x : x;
    default:
      return std::clamp(x, static_cast<double>(epilogue.lower), static_cast<double>(epilogue.upper));
  }
}

struct ReferenceResult {
  std::vector<double> value;
  std::vector<double> magnitude;  // sum of the absolute values that went into it: what rounding errors scale with
};

// One image in [channels][height][width].
inline ReferenceResult ReferenceConvolution(const ConvolutionShape& shape, const std::vector<float>& weight,
                                            const std::vector<float>& bias, const float* residual,
                                            const Epilogue& epilogue, int64_t height, int64_t width,
                                            const float* input) {
  const int64_t out_height = shape.output_height(height);
  const int64_t out_width = shape.output_width(width);
  const int64_t group_inputs = shape.input_channels / shape.groups;
  const int64_t group_outputs = shape.output_channels / shape.groups;
  ReferenceResult result;
  for (int64_t co = 0; co < shape.output_channels; ++co) {
    for (int64_t y = 0; y < out_height; ++y) {
      for (int64_t x = 0; x < out_width; ++x) {
        double sum = bias.empty() ? 0.0 : bias[static_cast<size_t>(co)];
        double magnitude = std::abs(sum);
        for (int64_t ci = 0; ci < group_inputs; ++ci) {
          const int64_t channel = co / group_outputs * group_inputs + ci;
          for (int64_t kh = 0; kh < shape.kernel_height; ++kh) {
            for (int64_t kw = 0; kw < shape.kernel_width; ++kw) {
              const int64_t row = y * shape.stride_height + kh * shape.dilation_height - shape.pad_top;
              const int64_t column = x * shape.stride_width + kw * shape.dilation_width - shape.pad_left;
              if (row < 0 || row >= height || column < 0 || column >= width) continue;
              const double w = weight[static_cast<size_t>(
                  ((co * group_inputs + ci) * shape.kernel_height + kh) * shape.kernel_width + kw)];
              if (w == 0.0) continue;  // not kept: not read, whatever stands there
              const double term = w * input[(channel * height + row) * width + column];
              sum += term;
              magnitude += std::abs(term);
            }
          }
        }
        if (residual != nullptr) {
          const double other = residual[(co * out_height + y) * out_width + x];
          sum += other;
          magnitude += std::abs(other);
        }
        result.value.push_back(ReferenceActivation(epilogue, sum));
        result.magnitude.push_back(magnitude);
      }
    }
  }
  return result;
}

inline std::vector<float> RandomValues(size_t count, std::mt19937* random) {
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(*random);
  return values;
}

inline std::vector<float> RandomSparse(size_t count, double density, std::mt19937* random) {
  std::vector<float> values = RandomValues(count, random);
  std::bernoulli_distribution keep(density);
  for (float& value : values) {
    if (!keep(*random)) value = 0.0f;
  }
  return values;
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_REFERENCE_H_
