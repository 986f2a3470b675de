// QuantisedConcat(P, P, ...) -> P: along channels. Attributes: channels, one number an input; input_scales and
// input_zero_points, likewise; output_scale, output_zero_point.
//
// QuantisedResize(P) -> P: each pixel becomes rows x columns pixels, as ONNX's Resize does in mode nearest for whole scales.
// Attributes: channels, rows, columns.
#ifndef GOSSAMER_ORT_QUANTISED_RESHAPE_H_
#define GOSSAMER_ORT_QUANTISED_RESHAPE_H_

#include <array>
#include <vector>

#include "kernels/quantised_reshape.h"
#include "ort/op.h"
#include "ort/output.h"

namespace gossamer {

class QuantisedConcatKernel {
 public:
  QuantisedConcatKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  std::vector<ConcatInput> inputs_;
  int64_t channels_ = 0;
  OutputMemory output_;
};

struct QuantisedConcatOp : Op<QuantisedConcatOp, QuantisedConcatKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedConcat";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t) const { return INPUT_OUTPUT_VARIADIC; }
  static void Infer(Ort::ShapeInferContext& context);
};

class QuantisedResizeKernel {
 public:
  QuantisedResizeKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  int64_t channels_;
  int64_t rows_;
  int64_t columns_;
  OutputMemory output_;
};

struct QuantisedResizeOp : Op<QuantisedResizeOp, QuantisedResizeKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedResize";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_QUANTISED_RESHAPE_H_
