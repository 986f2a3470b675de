// QuantisedMatMul(X, W, S, B?, R?, T?) -> Y: bytes times int8, tokens of any leading dimensions.
//
//   X  [..., k] uint8
//   W  packed int8 weight [n, k], uint8, constant
//   S, B, R, T and all attributes but those of convolutions: as in QuantisedConv; output_features (n, for shape inference).
//      R may also be [n], added to every token
//
// DynamicMatMul(X, W, S, B?, R?) -> Y: floats times int8, where each token is quantised by itself.
//
//   X  [..., k] float
//   W  packed int8 weight [n, k], uint8, constant
//   S  weight scale, one for each output feature, float, constant
//   B  bias, R residual: as in SparseMatMul, whose attributes it has
//
// DequantisedMatMul(X, W, S, Q, Z, B?, R?) -> Y: bytes times int8, as floats.
//
//   X        [..., k] uint8
//   Q, Z     what X stands for: Q (X - Z). One float and one uint8, which may be computed as the network runs
//   W, S, B, R and attributes: as in DynamicMatMul
#ifndef GOSSAMER_ORT_QUANTISED_MATMUL_H_
#define GOSSAMER_ORT_QUANTISED_MATMUL_H_

#include <array>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/quantised_matmul.h"
#include "ort/op.h"
#include "ort/output.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {

class QuantisedMatMulKernel {
 public:
  QuantisedMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  SparseByteWeight weight_;
  bool residual_scaled_ = false;
  QuantisedMatMulPlan plan_;
  OutputMemory output_;
};

struct QuantisedMatMulOp : Op<QuantisedMatMulOp, QuantisedMatMulKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedMatMul";
  static constexpr auto kInputs = kRequantisedInputs;
  static constexpr int kMayReuseInput = kRequantisedResidual;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

// Products whose sums become floats.
class FloatMatMulKernel {
 protected:
  // The bias is the input of this number.
  FloatMatMulKernel(const char* name, const Ort::ConstKernelInfo& info, int64_t threads, size_t bias);
  template <class Element, class Run>
  void Multiply(Ort::KernelContext& context, const TensorInput<Element>& input, size_t residual, const Run& run);

 private:
  const char* name_;
  int64_t threads_;
  SparseByteWeight weight_;
  QuantisedMatMulPlan plan_;
  OutputMemory output_;
};

class DynamicMatMulKernel : FloatMatMulKernel {
 public:
  DynamicMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);
};

class DequantisedMatMulKernel : FloatMatMulKernel {
 public:
  DequantisedMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);
};

struct DynamicMatMulOp : Op<DynamicMatMulOp, DynamicMatMulKernel> {
  using Op::Op;
  static constexpr const char* kName = "DynamicMatMul";
  static constexpr std::array<Input, 5> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = 4;
  static void Infer(Ort::ShapeInferContext& context);
};

struct DequantisedMatMulOp : Op<DequantisedMatMulOp, DequantisedMatMulKernel> {
  using Op::Op;
  static constexpr const char* kName = "DequantisedMatMul";
  static constexpr std::array<Input, 7> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = 6;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_QUANTISED_MATMUL_H_
