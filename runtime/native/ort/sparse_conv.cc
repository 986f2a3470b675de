#include "ort/sparse_conv.h"

#include "kernels/convolution.h"
#include "kernels/limits.h"
#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {
namespace {

// The weight says its own shape. Its channels are counted by the panel that it meets; the other numbers the attributes say
// as well.
void RequireWeightShape(const SparseWeight& weight, const ConvolutionAttributes& attributes) {
  const ConvolutionShape& shape = attributes.shape;
  const std::vector<int64_t>& given = weight.shape;
  const bool same = given.size() == attributes.axes + 2 && given[0] == shape.output_channels &&
                    given.back() == shape.kernel_width && (attributes.axes == 1 || given[2] == shape.kernel_height);
  Require(same, "SparseConv: the weight's shape is not [output_channels, channels / group, kernel_shape]");
}

}  // namespace

SparseConvKernel::SparseConvKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), epilogue_(ReadEpilogue(info)), weight_(ReadWeight(info, 1)) {
  RequireExplicitPadding(info);
  const ConvolutionAttributes attributes = ReadConvolution(info);
  shape_ = attributes.shape;
  rank_ = attributes.axes + 2;
  Require(shape_.kernel_height >= 1 && shape_.kernel_height <= kMaximumExtent && shape_.kernel_width >= 1 &&
              shape_.kernel_width <= kMaximumExtent && shape_.groups >= 1 && shape_.groups <= kMaximumExtent,
          "SparseConv: kernel_shape and group must be within 1 and 2^24");
  RequireWeightShape(weight_, attributes);
  shape_.input_channels = weight_.columns / shape_.taps() * shape_.groups;
  Require(CheckConvolution(shape_, weight_));
  bias_ = ReadBias(info, 2, shape_.output_channels);
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
    options.traits = CurrentKernelTraits();
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
  if (input->shape.size() != rank_) {
    Fail("SparseConv: kernel_shape is for inputs of " + std::to_string(rank_) + " dimensions, the input has " +
         std::to_string(input->shape.size()));
  }
  const ImageShape image = RequirePanel("SparseConv", input->shape, shape_.input_channels);
  const std::shared_ptr<const Plans> plans = Plan(image.height, image.width);
  if (plans->depthwise) {
    Compute(context, *input, *plans->depthwise, RunDepthwise);
  } else {
    Compute(context, *input, *plans->convolution, RunConvolution);
  }
}

void SparseConvOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const ConvolutionAttributes attributes = ReadConvolution(static_cast<const Ort::ShapeInferContext&>(context));
  ConvolutionShape shape = attributes.shape;
  if (!KnowsImage(input) || shape.output_channels < 1) return;
  Require(input.size() == attributes.axes + 2, "SparseConv: kernel_shape has not one number for each axis of the input");
  shape.input_channels = shape.groups;  // the weight is not known here; the kernel checks it
  Require(CheckNumbers(shape));
  Require(CheckImage(shape, HeightOf(input), WidthOf(input)));
  const int64_t height = shape.output_height(HeightOf(input));
  const int64_t width = shape.output_width(WidthOf(input));
  RequireImage(shape.output_channels, height, width);
  InferredShape output = input;
  output[1] = MakePanelLayout(height, width).storage_channels(shape.output_channels);
  if (output.size() == 4) output[2] = height;
  output[output.size() - 1] = width;
  SetOutputShape(context, output);
}

}  // namespace gossamer
