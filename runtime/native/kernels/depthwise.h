// Depthwise convolution on panels: every output channel reads one input channel. The weights are taken as dense, because
// there are few of them; the layer sits between sparse ones and reads and writes their layout.
#ifndef GOSSAMER_KERNELS_DEPTHWISE_H_
#define GOSSAMER_KERNELS_DEPTHWISE_H_

#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"
#include "kernels/convolution.h"
#include "kernels/convolution_plan.h"

namespace gossamer {

struct DepthwisePlan {
  ConvolutionShape shape;
  PanelLayout input;
  PanelLayout output;
  Epilogue epilogue;
  std::vector<float> bias;
  std::vector<float> weights;  // [output channel][tap: all of the kernel's if direct, else those of tap_offsets]

  // 3x3 whose columns look one pixel to the left, none and one to the right, stride 1 or 2, whole rows: read from the
  // panel as it lies. Everything else is staged channel by channel with a halo.
  bool direct = false;
  int64_t row_floats = 0;            // from one staged row to the next
  std::vector<int64_t> tap_offsets;  // in a staged channel, of the taps that read more than padding
  std::vector<Range> tile_taps;      // which of them each tile needs
  std::vector<TilePlan> tiles;
  int64_t stage_floats = 0;
  int64_t sum_floats = 0;
  int64_t parts = 1;  // of the output channels

  int64_t items(int64_t images) const { return images * output.tiles() * parts; }
  // Consecutive items that one thread does best at once: channels have nothing in common.
  int64_t together() const { return 1; }
  int64_t scratch_floats() const { return stage_floats + sum_floats; }
};

// Whether a convolution is one for this kernel: as many groups, more than one, as input channels.
inline bool IsDepthwise(const ConvolutionShape& shape) {
  return shape.groups > 1 && shape.groups == shape.input_channels;
}

// `bias` holds output_channels floats or is null; `threads`: that tiles and channels are dealt to. Of a convolution that
// GoesAlongOneColumn, the plan is that of the turned one. Needs IsDepthwise, CheckConvolution and CheckImage to have passed.
Status MakeDepthwisePlan(const ConvolutionShape& shape, const SparseWeight& weight, const float* bias,
                         const Epilogue& epilogue, int64_t height, int64_t width, int64_t threads, DepthwisePlan* plan);

// Computes items [first, last) of plan.items(images): (image, tile, part of the channels). Arguments as in RunConvolution.
void RunDepthwise(const DepthwisePlan& plan, const float* input, const float* residual, float* output,
                  const ImageStrides& strides, int64_t first, int64_t last, float* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_DEPTHWISE_H_
