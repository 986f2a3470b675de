#include "ort/sparse_conv.h"

#include "kernels/convolution.h"
#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {

SparseConvKernel::SparseConvKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), shape_(ReadConvolutionShape(info)), epilogue_(ReadEpilogue(info)), weight_(ReadWeight(info, 1)) {
  Require(shape_.kernel_height >= 1 && shape_.kernel_height <= kMaximumExtent && shape_.kernel_width >= 1 &&
              shape_.kernel_width <= kMaximumExtent && shape_.groups >= 1 && shape_.groups <= kMaximumExtent,
          "SparseConv: kernel_shape and group must be within 1 and 2^24");
  shape_.input_channels = weight_.columns / shape_.taps() * shape_.groups;
  Require(CheckConvolution(shape_, weight_));
  bias_ = ReadBias(info, 2, shape_.output_channels);
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (known.size() == 4 && known[2] >= 1 && known[3] >= 1) Plan(known[2], known[3]);
}

std::shared_ptr<const ConvolutionPlan> SparseConvKernel::Plan(int64_t height, int64_t width) {
  return plans_.Get({height, width}, [&] {
    Require(CheckImage(shape_, height, width));
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    options.slices = threads_;
    auto plan = std::make_shared<ConvolutionPlan>();
    Require(MakeConvolutionPlan(shape_, weight_, bias_.data(), epilogue_, height, width, options, plan.get()));
    return plan;
  });
}

void SparseConvKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "SparseConv: no input");
  RequirePanel(input->shape, shape_.input_channels);
  const int64_t images = input->shape[0];
  const std::shared_ptr<const ConvolutionPlan> plan = Plan(input->shape[2], input->shape[3]);
  const std::vector<int64_t> output_shape = PanelShape(images, plan->output, shape_.output_channels);
  const std::optional<FloatInput> residual = GetFloatInput(context, 3);
  Require(!residual || residual->shape == output_shape, "SparseConv: the residual has not the output's shape");

  float* output = context.GetOutput(0, output_shape).GetTensorMutableData<float>();
  const ImageStrides strides{plan->input.image_stride(shape_.input_channels),
                             plan->output.image_stride(shape_.output_channels)};
  // Whole cache lines each, so that no two threads write to one.
  const int64_t scratch_floats = (plan->scratch_floats() + 15) / 16 * 16;
  float* scratch = Scratch::OfThisThread(scratch_floats * threads_);
  ParallelRanges(context, plan->items(images), threads_, [&](int64_t first, int64_t last, int64_t part) {
    RunConvolution(*plan, input->data, residual ? residual->data : nullptr, output, strides, first, last,
                   scratch + part * scratch_floats);
  });
}

void SparseConvOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  ConvolutionShape shape = ReadConvolutionShape(static_cast<const Ort::ShapeInferContext&>(context));
  if (!KnowsImage(input) || shape.output_channels < 1) return;
  shape.input_channels = shape.groups;  // the weight is not known here; the kernel checks it
  Require(CheckNumbers(shape));
  Require(CheckImage(shape, input[2].AsInt(), input[3].AsInt()));
  const int64_t height = shape.output_height(input[2].AsInt());
  const int64_t width = shape.output_width(input[3].AsInt());
  RequireImage(shape.output_channels, height, width);
  InferredShape output = input;
  output[1] = MakePanelLayout(height, width).storage_channels(shape.output_channels);
  output[2] = height;
  output[3] = width;
  Ort::ThrowOnError(context.SetOutputShape(0, output));
}

}  // namespace gossamer
