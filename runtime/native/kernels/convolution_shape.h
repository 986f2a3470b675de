// What a convolution is: sizes, strides, padding, dilation, groups.
#ifndef GOSSAMER_KERNELS_CONVOLUTION_SHAPE_H_
#define GOSSAMER_KERNELS_CONVOLUTION_SHAPE_H_

#include <cstdint>

#include "format/sparse_weight.h"
#include "format/status.h"

namespace gossamer {

struct ConvolutionShape {
  int64_t input_channels = 0;
  int64_t output_channels = 0;
  int64_t groups = 1;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t dilation_height = 1, dilation_width = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;

  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t output_height(int64_t height) const {
    return (height + pad_top + pad_bottom - dilation_height * (kernel_height - 1) - 1) / stride_height + 1;
  }
  int64_t output_width(int64_t width) const {
    return (width + pad_left + pad_right - dilation_width * (kernel_width - 1) - 1) / stride_width + 1;
  }
};

// Whether a convolution goes along the only column of its images: a row of one pixel would fill one lane of a vector.
inline bool GoesAlongOneColumn(const ConvolutionShape& shape, int64_t height, int64_t width) {
  return height > 1 && width == 1 && shape.kernel_width == 1 && shape.pad_left == 0 && shape.pad_right == 0;
}

// The same convolution of the image turned by a quarter, whose panels are the same memory (MakePanelLayout).
ConvolutionShape Turned(const ConvolutionShape& shape);

// Whether the numbers are those of a convolution: positive, within limits, groups that divide the channels.
Status CheckNumbers(const ConvolutionShape& shape);

// CheckNumbers, and whether they are of a weight [output_channels, input_channels / groups, kh, kw].
template <class Value>
Status CheckConvolution(const ConvolutionShape& shape, const SparseMatrix<Value>& weight) {
  if (const Status status = CheckNumbers(shape); !status.ok()) return status;
  if (weight.rows != shape.output_channels || weight.columns % shape.taps() != 0 ||
      weight.columns / shape.taps() != shape.input_channels / shape.groups) {
    return Status::Problem("convolution: the weight's shape is not [output, input / groups, kernel height, width]");
  }
  return Status::Ok();
}

// Whether the image is large enough for one output pixel, and small enough to count its elements. Needs CheckNumbers to
// have passed.
Status CheckImage(const ConvolutionShape& shape, int64_t height, int64_t width);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_CONVOLUTION_SHAPE_H_
