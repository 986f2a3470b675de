#include "kernels/requantisation.h"

#include <cstddef>

namespace gossamer {
namespace {

bool IsByte(int32_t value) { return value >= 0 && value <= 255; }

}  // namespace

Status CheckRequantisation(const Requantisation& output, int64_t output_channels) {
  if (static_cast<int64_t>(output.scale.size()) != output_channels) {
    return Status::Problem("quantised op: expected one scale for each output channel");
  }
  for (const float scale : output.scale) {
    if (!IsScale(scale)) return Status::Problem("quantised op: a scale is not within 2^-126 and 2^64");
  }
  if (output.residual_scale != 0.0f && !IsScale(output.residual_scale)) {
    return Status::Problem("quantised op: the residual's scale is not within 2^-126 and 2^64");
  }
  if (!IsByte(output.zero_point) || !IsByte(output.residual_zero_point)) {
    return Status::Problem("quantised op: a zero point is not within 0 and 255");
  }
  if (!IsByte(output.lower) || !IsByte(output.upper) || output.lower > output.upper) {
    return Status::Problem("quantised op: the bounds of the output are not within 0 and 255, the lower one first");
  }
  if (output.sum_step != 0.0f && !IsScale(output.sum_step)) {
    return Status::Problem("quantised op: the step of the sums is not within 2^-126 and 2^64");
  }
  if (!(output.sum_lower >= -255.0f && output.sum_lower <= output.sum_upper && output.sum_upper <= 255.0f)) {
    return Status::Problem("quantised op: the bounds of the sums are not within -255 and 255, the lower one first");
  }
  if (!output.table.empty() && output.table.size() != 256) {
    return Status::Problem("quantised op: a table of an activation function has 256 values");
  }
  return Status::Ok();
}

bool StaysWithin32Bits(const Requantisation& output, const std::vector<int64_t>& largest_sums) {
  // Sums of two of them, rounded, are still below 2^31.
  const auto is_small = [](double most) { return most <= 536870912.0; };
  for (size_t row = 0; row < output.scale.size(); ++row) {
    if (!is_small(static_cast<double>(output.scale[row]) * static_cast<double>(largest_sums[row]))) return false;
  }
  return is_small(255.0 * static_cast<double>(output.residual_scale)) && is_small(255.0 * static_cast<double>(output.sum_step));
}

}  // namespace gossamer
