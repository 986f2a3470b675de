// Max pooling on panels, so that networks which pool between sparse layers need not leave their layout.
#ifndef GOSSAMER_KERNELS_MAX_POOL_H_
#define GOSSAMER_KERNELS_MAX_POOL_H_

#include <cstdint>
#include <vector>

#include "format/status.h"
#include "kernels/convolution.h"
#include "kernels/convolution_plan.h"

namespace gossamer {

// Kernel, strides, dilations and padding of a ConvolutionShape whose input and output channels are the same. Pixels of
// the padding are below every number.
struct MaxPoolPlan {
  ConvolutionShape shape;
  PanelLayout input;
  PanelLayout output;
  int64_t parts = 1;       // of the channels
  int64_t row_floats = 0;  // of an input row with its padding
  // Of each input row's segments: where in an image's panel they begin, in the first channel.
  std::vector<int64_t> places;

  int64_t items(int64_t images) const { return images * output.bands * parts; }
  int64_t scratch_floats() const { return row_floats; }
};

// `threads`: that tiles and channels are dealt to. Needs CheckNumbers and CheckImage to have passed.
Status MakeMaxPoolPlan(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads, MaxPoolPlan* plan);

// Computes items [first, last) of plan.items(images): (image, tiles beside one another, part of the channels). `scratch` is
// this thread's: plan.scratch_floats() floats.
void RunMaxPool(const MaxPoolPlan& plan, const float* input, float* output, const ImageStrides& strides, int64_t first,
                int64_t last, float* scratch);

// The same of bytes, whose panels' channels are lanes of four.
void RunQuantisedMaxPool(const MaxPoolPlan& plan, const int32_t* input, int32_t* output, const ImageStrides& strides,
                         int64_t first, int64_t last, int32_t* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_MAX_POOL_H_
