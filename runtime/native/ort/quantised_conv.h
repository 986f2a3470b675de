// QuantisedConv(P, W, S, B?, R?, T?) -> P: sparse convolution of bytes from panel to panel.
//
//   P  panel tensor of bytes (QuantisedToPanel or QuantisedConv)
//   W  packed int8 weight [output channels, input channels / group, kernel height, kernel width], uint8, constant
//   S  input scale * weight scale / output scale, one for each output channel, float, constant
//   B  bias in units of input scale * weight scale, int32, constant
//   R  residual, a panel tensor of bytes of the output's shape; its memory may become the output's
//   T  an activation function as a table of 256 outputs, uint8, constant
//
// Attributes as in SparseConv (kernel_shape, strides, dilations, pads, group, output_channels); input_zero_point and
// output_zero_point; lower and upper, which ReLU and clips come to; residual_scale, that of the residual over the output's,
// and residual_zero_point; sum_step, sum_lower and sum_upper: the bytes that sums become before
// it is added. What is computed: kernels/requantisation.h.
#ifndef GOSSAMER_ORT_QUANTISED_CONV_H_
#define GOSSAMER_ORT_QUANTISED_CONV_H_

#include <array>
#include <memory>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/quantised_convolution_plan.h"
#include "kernels/quantised_depthwise.h"
#include "ort/op.h"
#include "ort/output.h"
#include "ort/plan_cache.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {

class QuantisedConvKernel {
 public:
  QuantisedConvKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  // One of the two.
  struct Plans {
    std::unique_ptr<const QuantisedConvolutionPlan> convolution;
    std::unique_ptr<const QuantisedDepthwisePlan> depthwise;
  };
  std::shared_ptr<const Plans> Plan(int64_t height, int64_t width);
  template <class Chosen, class Run>
  void Compute(Ort::KernelContext& context, const TensorInput<uint8_t>& input, const Chosen& plan, const Run& run);

  int64_t threads_;
  size_t rank_ = 4;  // of input and output
  SparseByteWeight weight_;
  ConvolutionShape shape_;
  std::vector<int32_t> bias_;
  int32_t input_zero_point_ = 0;
  Requantisation requantisation_;
  PlanCache<Plans> plans_;
  OutputMemory output_;
};

struct QuantisedConvOp : Op<QuantisedConvOp, QuantisedConvKernel> {
  using Op::Op;
  static constexpr const char* kName = "QuantisedConv";
  static constexpr auto kInputs = kRequantisedInputs;
  static constexpr int kMayReuseInput = kRequantisedResidual;
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_QUANTISED_CONV_H_
