#include "ort/sparse_conv.h"

#include "kernels/convolution.h"
#include "kernels/half_weight.h"
#include "ort/constants.h"
#include "ort/convolution_op.h"
#include "ort/parallel.h"

namespace gossamer {

SparseConvKernel::SparseConvKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), epilogue_(ReadEpilogue(info)), arithmetic_(ReadArithmetic(info)) {
  RequireExplicitPadding(info);
  const ConvolutionAttributes attributes = ReadConvolution(info);
  rank_ = attributes.axes + 2;
  weight_ = ReadWeight(info, 1, threads, &bias_);
  shape_ = RequireConvolution("SparseConv", attributes, weight_);
  bias_ = ReadBias(info, 2, weight_.rows, std::move(bias_));
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (known.size() == rank_ && KnowsImage(known)) {
    const ImageShape image = ImageOf(known);
    Plan(image.height, image.width);
    RequireKnownPanel("SparseConv", known, shape_.input_channels);
  }
}

std::shared_ptr<const SparseConvKernel::Plans> SparseConvKernel::Plan(int64_t height, int64_t width) {
  return plans_.Get({height, width}, [&] {
    Require(CheckImage(shape_, height, width));
    auto plans = std::make_shared<Plans>();
    if (IsDepthwise(shape_)) {
      auto depthwise = std::make_unique<DepthwisePlan>();
      Require(MakeDepthwisePlan(shape_, weight_, bias_.data(), epilogue_, height, width, threads_, depthwise.get()));
      plans->depthwise = std::move(depthwise);
      return plans;
    }
    PlanOptions options;
    options.arithmetic = HalvesPay(weight_, shape_.input_channels) ? arithmetic_ : Arithmetic::kFloat;
    options.traits = CurrentKernelTraits(options.arithmetic);
    options.threads = threads_;
    auto convolution = std::make_unique<ConvolutionPlan>();
    Require(MakeConvolutionPlan(shape_, weight_, bias_.data(), epilogue_, height, width, options, convolution.get()));
    plans->convolution = std::move(convolution);
    return plans;
  });
}

template <class Chosen, class Run>
void SparseConvKernel::Compute(Ort::KernelContext& context, const FloatInput& input, const Chosen& plan,
                               const Run& run) {
  const int64_t images = input.shape[0];
  // Not from the plan, which may be that of the turned image.
  const ImageShape image = ImageOf(input.shape);
  const PanelLayout layout = MakePanelLayout(shape_.output_height(image.height), shape_.output_width(image.width));
  const std::vector<int64_t> output_shape = PanelShape(rank_, images, layout, shape_.output_channels);
  const std::optional<FloatInput> residual = GetFloatInput(context, 3);
  Require(!residual || residual->shape == output_shape, "SparseConv: the residual has not the output's shape");

  float* output = output_.Get(context, output_shape);
  const ImageStrides strides{plan.input.image_stride(shape_.input_channels),
                             plan.output.image_stride(shape_.output_channels)};
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_floats(), threads_);
  const float* add = residual ? residual->data : nullptr;
  ParallelStealing(context, plan.items(images), threads_, plan.together(),
                   [&](int64_t first, int64_t last, int64_t part) {
                   run(plan, input.data, add, output, strides, first, last, scratch.of(part));
                 });
}

void SparseConvKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "SparseConv: no input");
  RequireAxes("SparseConv", rank_, input->shape.size());
  const ImageShape image = RequirePanel("SparseConv", input->shape, shape_.input_channels);
  const std::shared_ptr<const Plans> plans = Plan(image.height, image.width);
  if (plans->depthwise) {
    Compute(context, *input, *plans->depthwise, RunDepthwise);
  } else {
    Compute(context, *input, *plans->convolution, RunConvolution);
  }
}

void SparseConvOp::Infer(Ort::ShapeInferContext& context) { InferConvolution<FloatPanels>(kName, context); }

}  // namespace gossamer
