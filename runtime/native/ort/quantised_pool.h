// QuantisedMaxPool(P) -> P and QuantisedAveragePool(P) -> P: pooling of panels of bytes.
//
// Attributes of both: kernel_shape, strides, dilations, pads and channels, as in PanelMaxPool. Of averages also input_scale,
// input_zero_point, output_scale, output_zero_point and count_include_pad.
#ifndef GOSSAMER_ORT_QUANTISED_POOL_H_
#define GOSSAMER_ORT_QUANTISED_POOL_H_

#include <array>

#include "ort/op.h"
#include "ort/pool_op.h"

namespace gossamer {

class QuantisedMaxPoolKernel : PoolKernel<BytePanels> {
 public:
  QuantisedMaxPoolKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);
};

struct QuantisedMaxPoolOp : Op<QuantisedMaxPoolOp, QuantisedMaxPoolKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedMaxPool";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

class QuantisedAveragePoolKernel : PoolKernel<BytePanels> {
 public:
  QuantisedAveragePoolKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  float scale_;
  int32_t input_zero_point_;
  int32_t output_zero_point_;
  bool counts_padding_;
};

struct QuantisedAveragePoolOp : Op<QuantisedAveragePoolOp, QuantisedAveragePoolKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedAveragePool";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_QUANTISED_POOL_H_
