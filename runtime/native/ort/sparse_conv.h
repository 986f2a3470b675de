// SparseConv(P, W, B?, R?) -> P: sparse convolution from panel to panel.
//
//   P  panel tensor (ToPanel or SparseConv)
//   W  packed weight [output channels, input channels / group, kernel height, kernel width], uint8, constant
//   B  bias, constant
//   R  residual, a panel tensor of the output's shape, added before the activation; its memory may become the output's
//
// Attributes as in ONNX's Conv (kernel_shape, strides, dilations, pads, group), all for two axes; output_channels;
// activation, lower and upper (ReadEpilogue).
#ifndef GOSSAMER_ORT_SPARSE_CONV_H_
#define GOSSAMER_ORT_SPARSE_CONV_H_

#include <array>
#include <memory>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/convolution_plan.h"
#include "ort/op.h"
#include "ort/plan_cache.h"

namespace gossamer {

class SparseConvKernel {
 public:
  SparseConvKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  std::shared_ptr<const ConvolutionPlan> Plan(int64_t height, int64_t width);

  int64_t threads_;
  ConvolutionShape shape_;
  Epilogue epilogue_;
  SparseWeight weight_;
  std::vector<float> bias_;
  PlanCache<ConvolutionPlan> plans_;
};

struct SparseConvOp : Op<SparseConvOp, SparseConvKernel> {
  using Op::Op;
  static constexpr const char* kName = "SparseConv";
  static constexpr std::array<Input, 4> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = 3;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_SPARSE_CONV_H_
