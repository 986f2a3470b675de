// Sparse matrix product of bytes: Y = X W' for X [tokens, inputs] and W [outputs, inputs] int8. Four neighbouring features of
// a token are a lane as they lie, so that tokens are transposed by lanes into and out of panels of one row.
//
//   static   X and Y are bytes of one scale each; what becomes of sums is requantisation.h
//   dynamic  X and Y are floats; each token is quantised by itself, symmetrically: to round(127 x / max |x|), ties to even.
//            y = (float(sum) * weight scale) * (max |x| / 127) + bias, then residual and activation as in SparseMatMul
//   dequantised  X is bytes of one scale, known only as it is run perhaps, and Y floats, as above:
//            y = float(sum) * (input scale * weight scale) + bias
#ifndef GOSSAMER_KERNELS_QUANTISED_MATMUL_H_
#define GOSSAMER_KERNELS_QUANTISED_MATMUL_H_

#include <cstdint>
#include <vector>

#include "kernels/epilogue.h"
#include "kernels/quantised_convolution_plan.h"
#include "kernels/token_tiles.h"

namespace gossamer {

// The zero point of sums that become floats: in the middle of the bytes.
inline constexpr int32_t kMiddle = 128;

struct QuantisedMatMulPlan {
  int64_t inputs = 0;
  QuantisedConvolutionPlan product;  // over an image of 1 x token_tile
  int64_t token_tile = 0;
  std::vector<int64_t> first_row;  // of each slice, and the end

  // Of products that make floats.
  std::vector<float> weight_scale;
  std::vector<float> bias;
  std::vector<int32_t> weight_sum;  // of each output's weights
  Epilogue epilogue;

  // Scratch of one thread, in lanes: blocks of features, tokens as bytes, results and residuals.
  int64_t stage_lanes = 0;
  int64_t token_lanes = 0;
  int64_t output_lanes = 0;

  int64_t items(int64_t tokens) const { return TokenTiles(tokens, token_tile) * together(); }
  // Consecutive items that one thread does best at once: the slices of a tile, whose input is then transposed once.
  int64_t together() const { return static_cast<int64_t>(product.slices.size()); }
  int64_t scratch_lanes() const { return stage_lanes + product.scratch_lanes() + token_lanes + 2 * output_lanes; }
};

// `bias` holds one number an output or is null, in units of input scale times weight scale. Needs CheckRequantisation and
// CheckSums to have passed.
Status MakeQuantisedMatMulPlan(const SparseByteWeight& weight, const int32_t* bias, int32_t input_zero_point,
                               const Requantisation& requantisation, const QuantisedOptions& options,
                               QuantisedMatMulPlan* plan);

// What bytes stand for: scale * (byte - zero point).
struct ByteScale {
  float scale = 1.0f;
  int32_t zero_point = 0;
};

// Of the dynamic product and the dequantised one. `weight_scale` holds one number an output, within kLeastScale and
// kLargestScale; `bias` likewise or is null. Needs CheckSums (without bias) to have passed.
Status MakeDynamicMatMulPlan(const SparseByteWeight& weight, const float* weight_scale, const float* bias,
                             const Epilogue& epilogue, const QuantisedOptions& options, QuantisedMatMulPlan* plan);

// What is added to each token: values of its own, or the same to all tokens; nothing without values.
struct ByteResidual {
  const uint8_t* values = nullptr;
  bool shared = false;
};

// Computes items [first, last) of plan.items(tokens): (tile of tokens, slice of outputs), slices innermost. `input` is
// [tokens, inputs], `output` and `residual` are [tokens, outputs]; `residual` may be null or the output itself. Tensors of
// bytes are aligned to 4. `scratch` is plan.scratch_lanes(), aligned to 64 bytes.
void RunQuantisedMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input,
                        const ByteResidual& residual, uint8_t* output, int64_t first, int64_t last, int32_t* scratch);
void RunDynamicMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const float* input, const float* residual,
                      float* output, int64_t first, int64_t last, int32_t* scratch);
void RunDequantisedMatMul(const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* input, const ByteScale& scale,
                          const float* residual, float* output, int64_t first, int64_t last, int32_t* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_MATMUL_H_
