// PanelMaxPool(P) -> P: max pooling from panel to panel.
//
// Attributes as in ONNX's MaxPool (kernel_shape, strides, dilations, pads) without auto_pad and ceil_mode, for two axes or,
// if the tensors have three dimensions, for one; channels.
#ifndef GOSSAMER_ORT_PANEL_MAX_POOL_H_
#define GOSSAMER_ORT_PANEL_MAX_POOL_H_

#include <array>

#include "ort/op.h"
#include "ort/pool_op.h"

namespace gossamer {

class PanelMaxPoolKernel : PoolKernel<FloatPanels> {
 public:
  PanelMaxPoolKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);
};

struct PanelMaxPoolOp : Op<PanelMaxPoolOp, PanelMaxPoolKernel> {
  using Op::Op;
  static constexpr const char* kName = "PanelMaxPool";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PANEL_MAX_POOL_H_
