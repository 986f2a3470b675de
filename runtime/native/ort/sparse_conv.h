// SparseConv(P, W, B?, R?) -> P: sparse convolution from panel to panel.
//
//   P  panel tensor (ToPanel or SparseConv)
//   W  packed weight [output channels, input channels / group, kernel height, kernel width], uint8, constant
//   B  bias, constant
//   R  residual, a panel tensor of the output's shape, added before the activation; its memory may become the output's
//
// Attributes as in ONNX's Conv (kernel_shape, strides, dilations, pads, group), all for two axes or, if the tensors have
// three dimensions, for one; output_channels; activation and its numbers (ReadEpilogue); arithmetic
// (ReadArithmetic), of all but depthwise ones. As many groups as input
// channels are a depthwise convolution, which takes its weights as dense.
#ifndef GOSSAMER_ORT_SPARSE_CONV_H_
#define GOSSAMER_ORT_SPARSE_CONV_H_

#include <array>
#include <memory>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/convolution_plan.h"
#include "kernels/depthwise.h"
#include "ort/op.h"
#include "ort/output.h"
#include "ort/plan_cache.h"

namespace gossamer {

class SparseConvKernel {
 public:
  SparseConvKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  // One of the two.
  struct Plans {
    std::unique_ptr<const ConvolutionPlan> convolution;
    std::unique_ptr<const DepthwisePlan> depthwise;
  };
  std::shared_ptr<const Plans> Plan(int64_t height, int64_t width);
  template <class Chosen, class Run>
  void Compute(Ort::KernelContext& context, const FloatInput& input, const Chosen& plan, const Run& run);

  int64_t threads_;
  size_t rank_ = 4;  // of input and output
  ConvolutionShape shape_;
  Epilogue epilogue_;
  SparseWeight weight_;
  Arithmetic arithmetic_;
  std::vector<float> bias_;
  PlanCache<Plans> plans_;
  OutputMemory output_;
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
