// Average pooling on panels of bytes.
#ifndef GOSSAMER_KERNELS_QUANTISED_AVERAGE_POOL_H_
#define GOSSAMER_KERNELS_QUANTISED_AVERAGE_POOL_H_

#include <cstdint>
#include <vector>

#include "kernels/convolution.h"
#include "kernels/convolution_shape.h"
#include "kernels/panel.h"
#include "kernels/quantised_panel.h"

namespace gossamer {

// Kernel, strides, dilations and padding of a ConvolutionShape whose input and output channels are the same. With n pixels
// in the window and their sum less n times the input's zero point:
//   value = round(clamp(float(sum) * (scale / n))) + output zero point,  ties to even, within 0 and 255
struct AveragePoolPlan {
  ConvolutionShape shape;
  PanelLayout input;
  PanelLayout output;
  float scale = 1.0f;  // input scale / output scale
  int32_t input_zero_point = 0;
  int32_t output_zero_point = 0;
  bool counts_padding = false;  // n is the kernel's size, not the number of its pixels in the image
  // Of each image row's segments: where in an image's panel they begin, in the first lane.
  std::vector<int64_t> places;

  int64_t quads() const { return QuadsOf(shape.input_channels); }
  int64_t items(int64_t images) const { return images * quads(); }
};

// Needs CheckNumbers and CheckImage to have passed.
AveragePoolPlan MakeAveragePoolPlan(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads);

// Computes items [first, last) of plan.items(images): (image, lane of channels). Strides are in lanes.
void RunAveragePool(const AveragePoolPlan& plan, const int32_t* input, int32_t* output, const ImageStrides& strides,
                    int64_t first, int64_t last);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_AVERAGE_POOL_H_
