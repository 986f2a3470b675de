// Sparse matrix product for transformers:
//   output[token][n] = epilogue(sum over k of weight[n][k] * input[token][k] + bias[n] + residual[token][n]).
//
// Tokens are the pixels of a 1x1 convolution. Their features lie side by side in memory, so each block of input
// features is transposed into a panel as it is staged, and the finished panel of outputs is transposed back.
//
// The stream is packed for tiles of token_tile tokens and serves any number of them: a tile of fewer tokens is the same
// panel with fewer lanes in use.
#ifndef GOSSAMER_KERNELS_MATMUL_H_
#define GOSSAMER_KERNELS_MATMUL_H_

#include <cstdint>

#include "kernels/convolution_plan.h"
#include "kernels/token_tiles.h"

namespace gossamer {

struct MatMulPlan {
  ConvolutionPlan product;  // over an image of 1 x token_tile
  int64_t token_tile = 0;
  int64_t stage_floats = 0;
  int64_t output_floats = 0;
  std::vector<int64_t> first_row;  // of each slice, and the end

  int64_t items(int64_t tokens) const {
    return TokenTiles(tokens, token_tile) * static_cast<int64_t>(product.slices.size());
  }
  // Consecutive items that one thread does best at once: the slices of a tile, whose input is then transposed once.
  int64_t together() const { return static_cast<int64_t>(product.slices.size()); }
  int64_t scratch_floats() const { return stage_floats + product.accumulator_floats + output_floats; }
};

// `weight` is [outputs, inputs]; `bias` holds one float an output or is null.
Status MakeMatMulPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue,
                      const PlanOptions& options, MatMulPlan* plan);

// Computes items [first, last) of plan.items(tokens): (tile of tokens, slice of outputs), slices innermost. `input` is
// [tokens, inputs], `output` and `residual` are [tokens, outputs]; `residual` may be null or the output itself.
// `scratch` as in RunConvolution.
void RunMatMul(const MatMulPlan& plan, int64_t tokens, const float* input, const float* residual, float* output,
               int64_t first, int64_t last, float* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_MATMUL_H_
