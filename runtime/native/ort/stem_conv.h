// StemConv(X, W, B?) -> P: a dense convolution of an image of few channels into panels (kernels/stem.h).
//
//   X  [images, channels, height, width]
//   W  [output channels, channels, kernel height, kernel width], constant
//   B  bias, constant
//   P  panel tensor
//
// Attributes as in ONNX's Conv (kernel_shape, strides, pads), all for two axes, the stride along columns 1 or 2;
// output_channels; activation and its numbers (ReadEpilogue); max_pool: 1 for a pooling of 3 x 3, stride 2, padding 1
// after the activation.
#ifndef GOSSAMER_ORT_STEM_CONV_H_
#define GOSSAMER_ORT_STEM_CONV_H_

#include <array>
#include <memory>
#include <vector>

#include "kernels/stem.h"
#include "ort/op.h"
#include "ort/output.h"
#include "ort/plan_cache.h"

namespace gossamer {

class StemConvKernel {
 public:
  StemConvKernel(const Ort::ConstKernelInfo& info, int64_t threads);
  void Compute(Ort::KernelContext& context);

 private:
  std::shared_ptr<const StemPlan> Plan(int64_t height, int64_t width);

  int64_t threads_;
  ConvolutionShape shape_;
  Epilogue epilogue_;
  bool max_pool_;
  std::vector<float> weight_;
  std::vector<float> bias_;
  PlanCache<StemPlan> plans_;
  OutputMemory output_;
};

struct StemConvOp : Op<StemConvOp, StemConvKernel> {
  using Op::Op;
  static constexpr const char* kName = "StemConv";
  static constexpr std::array<Input, 3> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_STEM_CONV_H_
