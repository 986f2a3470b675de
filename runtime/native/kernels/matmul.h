// Sparse matrix product for transformers:  output[token][n] = epilogue(sum over k of weight[n][k] * input[token][k]).
//
// Tokens are the pixels of a 1x1 convolution. Their features lie side by side in memory, so each block of input
// features is transposed into a panel as it is staged, and the finished panel of outputs is transposed back.
#ifndef GOSSAMER_KERNELS_MATMUL_H_
#define GOSSAMER_KERNELS_MATMUL_H_

#include <cstdint>

#include "kernels/convolution_plan.h"

namespace gossamer {

struct MatMulPlan {
  ConvolutionPlan product;  // over an image of 1 x tokens
  int64_t stage_floats = 0;
  int64_t output_floats = 0;
  std::vector<int64_t> first_row;  // of each slice, and the end

  int64_t items() const { return product.items(1); }
  int64_t scratch_floats() const { return stage_floats + product.accumulator_floats + output_floats; }
};

// `weight` is [outputs, inputs]; `bias` holds one float an output or is null; tokens is at least 1.
Status MakeMatMulPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue, int64_t tokens,
                      const PlanOptions& options, MatMulPlan* plan);

// Computes items [first, last): (tile of tokens, slice of outputs), slices innermost. `scratch` as in RunConvolution.
void RunMatMul(const MatMulPlan& plan, const float* input, float* output, int64_t first, int64_t last, float* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_MATMUL_H_
