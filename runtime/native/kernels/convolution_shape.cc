#include "kernels/convolution_shape.h"

#include <utility>

#include "kernels/limits.h"
#include "kernels/panel.h"

namespace gossamer {
namespace {

bool Within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

}  // namespace

ConvolutionShape Turned(const ConvolutionShape& shape) {
  ConvolutionShape turned = shape;
  std::swap(turned.kernel_height, turned.kernel_width);
  std::swap(turned.stride_height, turned.stride_width);
  std::swap(turned.dilation_height, turned.dilation_width);
  turned.pad_top = shape.pad_left;
  turned.pad_bottom = shape.pad_right;
  turned.pad_left = shape.pad_top;
  turned.pad_right = shape.pad_bottom;
  return turned;
}

Status CheckNumbers(const ConvolutionShape& shape) {
  for (const int64_t extent : {shape.input_channels, shape.output_channels, shape.groups, shape.kernel_height,
                               shape.kernel_width, shape.stride_height, shape.stride_width, shape.dilation_height,
                               shape.dilation_width}) {
    if (!Within(extent, 1, kMaximumExtent)) {
      return Status::Problem("convolution: channels, groups, kernel, strides and dilations must be within 1 to 2^24");
    }
  }
  if (shape.taps() > kMaximumTaps) return Status::Problem("convolution: a kernel of more than 2^14 positions");
  for (const int64_t pad : {shape.pad_top, shape.pad_left, shape.pad_bottom, shape.pad_right}) {
    if (!Within(pad, 0, kMaximumPadding)) return Status::Problem("convolution: padding must be within 0 and 2^16");
  }
  if (shape.input_channels % shape.groups != 0 || shape.output_channels % shape.groups != 0) {
    return Status::Problem("convolution: the groups do not divide the channels");
  }
  return Status::Ok();
}

Status CheckImage(const ConvolutionShape& shape, int64_t height, int64_t width) {
  if (const Status status = CheckPanelSize(shape.input_channels, height, width); !status.ok()) return status;
  const int64_t reach_height = shape.dilation_height * (shape.kernel_height - 1) + 1;
  const int64_t reach_width = shape.dilation_width * (shape.kernel_width - 1) + 1;
  if (height + shape.pad_top + shape.pad_bottom < reach_height ||
      width + shape.pad_left + shape.pad_right < reach_width) {
    return Status::Problem("convolution: the kernel is larger than the padded image");
  }
  return CheckPanelSize(shape.output_channels, shape.output_height(height), shape.output_width(width));
}

}  // namespace gossamer
