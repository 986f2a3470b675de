// A sparse convolution of bytes made ready for one processor and one image size.
#ifndef GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_PLAN_H_
#define GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/product_plan.h"
#include "kernels/quantised_panel.h"
#include "kernels/quantised_weight.h"
#include "kernels/requantisation.h"

namespace gossamer {

// How a processor multiplies bytes (quantised_product-inl.h).
struct ByteTraits {
  KernelTraits kernel;
  bool quads = false;        // by instructions that add four products to 32 bits
  bool split_pairs = false;  // whether quads must be split that two products of would leave 16 bits
};

struct QuantisedOptions {
  ByteTraits traits;  // CurrentByteTraits()
  int64_t threads = 1;
  int64_t block_bytes = 0;   // as in PlanOptions
  bool column_shift = true;  // likewise
};

// shape.input_channels and all lanes are of four channels; shape.output_channels are single ones, and rows.
struct QuantisedConvolutionPlan : ProductPlan {
  Requantisation requantisation;
  bool within_32_bits = false;  // StaysWithin32Bits
  std::vector<PanelByte> table;  // requantisation.table, of panels' bytes
  bool quads = false;
  int32_t padding = 0;  // a lane of it
  // What the sums of each window's rows begin with: the bias, less the zero point times the weights, which makes of sums
  // over bytes those over numbers.
  std::vector<int32_t> bias;
  // What the padding left and right of an image adds to the columns beside it, of each window's rows; empty where columns
  // are not shifted in registers or the zero point's byte is 0.
  std::vector<int32_t> left_padding;
  std::vector<int32_t> right_padding;

  int64_t output_quads() const { return QuadsOf(shape.output_channels); }
  int64_t scratch_lanes() const { return scratch_floats(); }
};

// `bias` holds output_channels integers in units of input scale times weight scale, or is null. Needs CheckConvolution,
// CheckImage, CheckRequantisation and CheckSums to have passed.
Status MakeQuantisedConvolutionPlan(const ConvolutionShape& shape, const SparseByteWeight& weight, const int32_t* bias,
                                    int32_t input_zero_point, const Requantisation& requantisation, int64_t height,
                                    int64_t width, const QuantisedOptions& options, QuantisedConvolutionPlan* plan);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_PLAN_H_
