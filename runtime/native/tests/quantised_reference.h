// What the kernels of bytes should compute: integers in 64 bits, then requantisation.h word for word.
#ifndef GOSSAMER_TESTS_QUANTISED_REFERENCE_H_
#define GOSSAMER_TESTS_QUANTISED_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/convolution_shape.h"
#include "kernels/requantisation.h"

namespace gossamer {

// `residual` points to a value or is null.
inline uint8_t ReferenceRequantised(const Requantisation& to, size_t channel, int64_t sum, const uint8_t* residual) {
  // Volatile: every operation is rounded by itself.
  volatile float scaled = static_cast<float>(static_cast<int32_t>(sum)) * to.scale[channel];
  if (residual != nullptr) {
    volatile const float other = static_cast<float>(*residual - to.residual_zero_point) * to.residual_scale;
    if (to.sum_step != 0.0f) {
      scaled = std::nearbyint(std::clamp(static_cast<float>(scaled), to.sum_lower, to.sum_upper));
      scaled = scaled * to.sum_step;
    }
    scaled = scaled + other;
  }
  const float lower = static_cast<float>(to.lower - to.zero_point);
  const float upper = static_cast<float>(to.upper - to.zero_point);
  const int value = static_cast<int>(std::nearbyint(std::clamp(static_cast<float>(scaled), lower, upper))) + to.zero_point;
  return to.table.empty() ? static_cast<uint8_t>(value) : to.table[static_cast<size_t>(value)];
}

// One image in [channels][height][width]; `weight` is [output][input / groups][kh][kw].
inline std::vector<uint8_t> QuantisedReference(const ConvolutionShape& shape, const std::vector<int8_t>& weight,
                                               const std::vector<int32_t>& bias, int32_t zero_point,
                                               const Requantisation& to, const uint8_t* residual, int64_t height,
                                               int64_t width, const uint8_t* input) {
  const int64_t out_height = shape.output_height(height);
  const int64_t out_width = shape.output_width(width);
  const int64_t group_inputs = shape.input_channels / shape.groups;
  const int64_t group_outputs = shape.output_channels / shape.groups;
  std::vector<uint8_t> result;
  for (int64_t co = 0; co < shape.output_channels; ++co) {
    for (int64_t y = 0; y < out_height; ++y) {
      for (int64_t x = 0; x < out_width; ++x) {
        int64_t sum = bias.empty() ? 0 : bias[static_cast<size_t>(co)];
        for (int64_t ci = 0; ci < group_inputs; ++ci) {
          const int64_t channel = co / group_outputs * group_inputs + ci;
          for (int64_t kh = 0; kh < shape.kernel_height; ++kh) {
            const int64_t row = y * shape.stride_height + kh * shape.dilation_height - shape.pad_top;
            if (row < 0 || row >= height) continue;
            for (int64_t kw = 0; kw < shape.kernel_width; ++kw) {
              const int64_t column = x * shape.stride_width + kw * shape.dilation_width - shape.pad_left;
              if (column < 0 || column >= width) continue;
              const int64_t w = weight[static_cast<size_t>(
                  ((co * group_inputs + ci) * shape.kernel_height + kh) * shape.kernel_width + kw)];
              sum += w * (input[(channel * height + row) * width + column] - zero_point);
            }
          }
        }
        result.push_back(ReferenceRequantised(to, static_cast<size_t>(co), sum,
                                              residual ? residual + result.size() : nullptr));
      }
    }
  }
  return result;
}

inline std::vector<uint8_t> RandomBytes(size_t count, std::mt19937* random) {
  std::uniform_int_distribution<int> uniform(0, 255);
  std::vector<uint8_t> values(count);
  for (uint8_t& value : values) value = static_cast<uint8_t>(uniform(*random));
  return values;
}

inline std::vector<int8_t> RandomSparseBytes(size_t count, double density, std::mt19937* random) {
  std::uniform_int_distribution<int> uniform(-128, 127);
  std::bernoulli_distribution keep(density);
  std::vector<int8_t> values(count, 0);
  for (int8_t& value : values) {
    if (keep(*random)) value = static_cast<int8_t>(uniform(*random));
  }
  return values;
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_QUANTISED_REFERENCE_H_
