// ToPanel and FromPanel: the edges of the sparse part of a network.
//
//   ToPanel(X [images, channels, height, width]) -> P [images, storage channels, height, width]
//   FromPanel(P; channels) -> X
//
// Sequences [images, channels, length] are images of one row; P then has three dimensions too. P keeps the image's size and says in its second dimension how much memory the panels take (PanelLayout).
#ifndef GOSSAMER_ORT_PANEL_OPS_H_
#define GOSSAMER_ORT_PANEL_OPS_H_

#include <array>

#include "ort/op.h"
#include "ort/output.h"

namespace gossamer {

class ToPanelKernel {
 public:
  ToPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  OutputMemory output_;
};

struct ToPanelOp : Op<ToPanelOp, ToPanelKernel> {
  using Op::Op;
  static constexpr const char* kName = "ToPanel";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

class FromPanelKernel {
 public:
  FromPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  int64_t threads_;
  int64_t channels_;
  OutputMemory output_;
};

struct FromPanelOp : Op<FromPanelOp, FromPanelKernel> {
  using Op::Op;
  static constexpr const char* kName = "FromPanel";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PANEL_OPS_H_
