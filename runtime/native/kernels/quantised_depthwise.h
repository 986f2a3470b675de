// Depthwise convolution of bytes: the four channels of a lane at once, with dense weights. Taps take the place of channels in
// the four products that are added at once.
#ifndef GOSSAMER_KERNELS_QUANTISED_DEPTHWISE_H_
#define GOSSAMER_KERNELS_QUANTISED_DEPTHWISE_H_

#include <cstdint>
#include <vector>

#include "kernels/convolution.h"
#include "kernels/quantised_convolution_plan.h"
#include "kernels/requantisation.h"

namespace gossamer {

// Four taps of four channels: where their pixels are in a staged lane, and [channel][tap] weights.
struct TapQuad {
  int32_t offset[kQuad];
  int8_t weight[kQuad * kQuad];
};

struct QuantisedDepthwisePlan {
  ConvolutionShape shape;  // of lanes
  int64_t channels = 0;
  PanelLayout input;
  PanelLayout output;
  Requantisation requantisation;  // scales for whole lanes
  bool within_32_bits = false;    // StaysWithin32Bits
  std::vector<PanelByte> table;
  bool quads = false;
  int32_t padding = 0;
  std::vector<int32_t> bias;       // for whole lanes; less the zero point times the weights
  std::vector<TapQuad> taps;
  std::vector<uint32_t> first_tap;  // of each lane of channels, and the end
  std::vector<TilePlan> tiles;
  int64_t row_lanes = 0;    // from one staged row to the next
  int64_t stage_lanes = 0;
  int64_t result_lanes = 0;
  int64_t parts = 1;  // of the lanes of channels

  int64_t items(int64_t images) const { return images * output.tiles() * parts; }
  int64_t together() const { return 1; }
  int64_t scratch_lanes() const { return stage_lanes + 2 * result_lanes; }
};

// Whether a convolution is one for this kernel: one output channel an input channel, and most tiles need all taps, with which
// all are computed.
bool SuitsQuantisedDepthwise(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads);

// As MakeQuantisedConvolutionPlan. Needs SuitsQuantisedDepthwise.
Status MakeQuantisedDepthwisePlan(const ConvolutionShape& shape, const SparseByteWeight& weight, const int32_t* bias,
                                  int32_t input_zero_point, const Requantisation& requantisation, int64_t height,
                                  int64_t width, const QuantisedOptions& options, QuantisedDepthwisePlan* plan);

// As RunQuantisedConvolution.
void RunQuantisedDepthwise(const QuantisedDepthwisePlan& plan, const int32_t* input, const int32_t* residual,
                           int32_t* output, const ImageStrides& strides, int64_t first, int64_t last,
                           int32_t* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_DEPTHWISE_H_
