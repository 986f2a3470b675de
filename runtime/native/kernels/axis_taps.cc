#include "kernels/axis_taps.h"

#include <algorithm>

namespace gossamer {
namespace {

bool ReadsPixels(const Axis& axis, const AxisTap& tap, int64_t first, int64_t last) {
  const int64_t begin = std::max(first, -tap.shift);
  const int64_t end = std::min(last, FloorDivide(axis.inputs - 1 - tap.residue, axis.stride) + 1 - tap.shift);
  return begin < end;
}

}  // namespace

Axis RowAxis(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  return {shape.kernel_height, shape.stride_height, shape.dilation_height, shape.pad_top, input.height, output.height};
}

Axis ColumnAxis(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  return {shape.kernel_width, shape.stride_width, shape.dilation_width, shape.pad_left, input.width, output.width};
}

std::vector<AxisTap> LiveTaps(const Axis& axis) {
  std::vector<AxisTap> taps;
  for (int64_t position = 0; position < axis.kernel; ++position) {
    const int64_t pixel = position * axis.dilation - axis.pad;
    const int64_t shift = FloorDivide(pixel, axis.stride);
    const AxisTap tap{position, shift, pixel - shift * axis.stride};
    if (ReadsPixels(axis, tap, 0, axis.outputs)) taps.push_back(tap);
  }
  return taps;
}

Range LiveRange(const Axis& axis, const std::vector<AxisTap>& taps, int64_t first, int64_t last) {
  const auto reads = [&](const AxisTap& tap) { return ReadsPixels(axis, tap, first, last); };
  const auto begin = std::find_if(taps.begin(), taps.end(), reads);
  const auto end = std::find_if(taps.rbegin(), std::make_reverse_iterator(begin), reads).base();
  return {begin - taps.begin(), end - taps.begin()};
}

}  // namespace gossamer
