// SparseMatMul(X, W, B?, R?) -> Y: Y[..., n] = activation(sum over k of W[n][k] X[..., k] + B[n] + R[..., n]).
//
//   X  any leading dimensions
//   W  packed weight [n, k], uint8, constant
//   B  bias, constant
//   R  residual of the output's shape, added before the activation; its memory may become the output's
//
// Attributes: output_features (n, for shape inference); activation and its numbers (ReadEpilogue); arithmetic
// (ReadArithmetic), of several rows.
#ifndef GOSSAMER_ORT_SPARSE_MATMUL_H_
#define GOSSAMER_ORT_SPARSE_MATMUL_H_

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/fully_connected.h"
#include "kernels/matmul.h"
#include "ort/op.h"
#include "ort/output.h"

namespace gossamer {

class SparseMatMulKernel {
 public:
  SparseMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  // One row is a matrix times a vector; more rows share registers. Each is packed once, when the session is created if the
  // input's shape is known then, else when it is needed first, and serves any number of rows.
  const FullyConnectedPlan& PlanForOne();
  const MatMulPlan& PlanForMany();

  int64_t threads_;
  Epilogue epilogue_;
  SparseWeight weight_;
  Arithmetic arithmetic_;
  std::vector<float> bias_;
  OutputMemory output_;
  std::mutex mutex_;
  std::unique_ptr<const FullyConnectedPlan> one_;
  std::unique_ptr<const MatMulPlan> many_;
};

struct SparseMatMulOp : Op<SparseMatMulOp, SparseMatMulKernel> {
  using Op::Op;
  static constexpr const char* kName = "SparseMatMul";
  static constexpr std::array<Input, 4> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = 3;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_SPARSE_MATMUL_H_
