// How 32-bit sums become quantised values again: the one rule, for all processors and for the references.
//
// For output channel c, with sum = bias[c] + sum of weight * (input - input zero point), exact, and all else in fp32, where
// every operation by itself is rounded to the nearest, ties to even:
//   scaled = float(sum) * scale[c]                                      scale = input scale * weight scale / output scale
//   scaled = round(clamp(scaled, sum lower, sum upper)) * sum step      if there is a sum step: that of sums, / output scale
//   scaled = scaled + float(residual - its zero point) * its scale      if there is a residual, its scale / output scale
//   value  = round(clamp(scaled, lower - zero point, upper - zero point)) + zero point              ties to even
//   value  = table[value]                                               if there is a table
// The two products and their sum are never fused: processors without fused multiply-adds would give other values.
// ONNX Runtime's QLinearConv takes the same sum and scale. Its additions are ops of their own, before which the sum has become
// a byte of another scale: that of the sum step, which scale[c] is for then, with the bounds of a byte less its zero point.
#ifndef GOSSAMER_KERNELS_REQUANTISATION_H_
#define GOSSAMER_KERNELS_REQUANTISATION_H_

#include <array>
#include <cstdint>
#include <vector>

#include "format/status.h"

namespace gossamer {

struct Requantisation {
  std::vector<float> scale;  // one an output channel
  int32_t zero_point = 0;
  int32_t lower = 0;  // the clamp of no activation, ReLU and clips
  int32_t upper = 255;
  float residual_scale = 0.0f;
  int32_t residual_zero_point = 0;
  float sum_step = 0.0f;
  float sum_lower = -255.0f;
  float sum_upper = 255.0f;
  std::vector<uint8_t> table;  // of any other activation function, 256 values; or empty
};

// Scales outside cannot be told from 0 or from infinity by a product with a sum.
inline constexpr float kLeastScale = 1.17549435e-38f;
inline constexpr float kLargestScale = 1.8446744e19f;
inline bool IsScale(float scale) { return scale >= kLeastScale && scale <= kLargestScale; }

// Whether scales are numbers within these bounds, zero points and clamps bytes, bounds of sums within -255 and 255, the
// lower one first, and a table has 256 values.
Status CheckRequantisation(const Requantisation& output, int64_t output_channels);

// Whether what is rounded is within 32 bits. `largest_sums` are the largest magnitudes of each output channel's sums.
bool StaysWithin32Bits(const Requantisation& output, const std::vector<int64_t>& largest_sums);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_REQUANTISATION_H_
