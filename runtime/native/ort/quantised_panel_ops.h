// The edges of the quantised part of a network.
//
//   QuantisedToPanel(X [images, channels, height, width] of float, uint8 or int8; scale, zero_point) -> P of uint8
//   QuantisedFromPanel(P; channels) -> X of uint8
//   DequantisedFromPanel(P; channels, scale, zero_point) -> X of float
//
// Floats are quantised as by ONNX's QuantizeLinear, which takes the place of an op of its own; scale is read for them only.
// int8 becomes uint8 by adding 128, and zero_point is that of uint8. Sequences are of three dimensions, as in ToPanel.
#ifndef GOSSAMER_ORT_QUANTISED_PANEL_OPS_H_
#define GOSSAMER_ORT_QUANTISED_PANEL_OPS_H_

#include <array>

#include "kernels/quantised_panel.h"
#include "ort/op.h"
#include "ort/output.h"

namespace gossamer {

class QuantisedToPanelKernel {
 public:
  QuantisedToPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  Quantisation quantisation_;
  OutputMemory output_;
};

struct QuantisedToPanelOp : Op<QuantisedToPanelOp, QuantisedToPanelKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedToPanel";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

template <class Element>
class FromBytePanelKernel {
 public:
  FromBytePanelKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  int64_t channels_;
  Quantisation quantisation_;
  OutputMemory output_;
};

struct QuantisedFromPanelOp : Op<QuantisedFromPanelOp, FromBytePanelKernel<uint8_t>> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedFromPanel";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

struct DequantisedFromPanelOp : Op<DequantisedFromPanelOp, FromBytePanelKernel<float>> {
  using Op::Op;
  static constexpr const char* kName = "DequantisedFromPanel";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_QUANTISED_PANEL_OPS_H_
