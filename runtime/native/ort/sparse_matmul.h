// SparseMatMul(X, W, B?) -> Y: Y[..., n] = activation(sum over k of W[n][k] X[..., k] + B[n]).
//
//   X  any leading dimensions
//   W  packed weight [n, k], uint8, constant
//   B  bias, constant
//
// Attributes: output_features (n, for shape inference); activation, lower and upper (ReadEpilogue).
#ifndef GOSSAMER_ORT_SPARSE_MATMUL_H_
#define GOSSAMER_ORT_SPARSE_MATMUL_H_

#include <array>
#include <memory>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/fully_connected.h"
#include "kernels/matmul.h"
#include "ort/op.h"
#include "ort/plan_cache.h"

namespace gossamer {

class SparseMatMulKernel {
 public:
  SparseMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  // One row is a matrix times a vector; more rows share registers.
  struct Plans {
    FullyConnectedPlan one;
    MatMulPlan many;
  };
  std::shared_ptr<const Plans> Plan(int64_t tokens);

  int64_t threads_;
  Epilogue epilogue_;
  SparseWeight weight_;
  std::vector<float> bias_;
  PlanCache<Plans> plans_;
};

struct SparseMatMulOp : Op<SparseMatMulOp, SparseMatMulKernel> {
  using Op::Op;
  static constexpr const char* kName = "SparseMatMul";
  static constexpr std::array<Input, 3> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_SPARSE_MATMUL_H_
