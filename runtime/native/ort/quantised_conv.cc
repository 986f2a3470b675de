#include "ort/quantised_conv.h"

#include "kernels/quantised_convolution.h"
#include "ort/constants.h"
#include "ort/convolution_op.h"
#include "ort/lanes.h"
#include "ort/parallel.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {

QuantisedConvKernel::QuantisedConvKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), weight_(ReadWeight<int8_t>(info, 1, threads)) {
  RequireExplicitPadding(info);
  const ConvolutionAttributes attributes = ReadConvolution(info);
  rank_ = attributes.axes + 2;
  shape_ = RequireConvolution("QuantisedConv", attributes, weight_);
  requantisation_ = ReadRequantisation(info, 2, 5, shape_.output_channels);
  bias_ = ReadBias<int32_t>(info, 3, shape_.output_channels);
  Require(CheckSums(weight_, bias_.data()));
  input_zero_point_ = ReadByte(info, "input_zero_point", 0);
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (known.size() == rank_ && KnowsImage(known)) {
    const ImageShape image = ImageOf(known);
    Plan(image.height, image.width);
    RequireKnownPanel<BytePanels>("QuantisedConv", known, shape_.input_channels);
  }
}

std::shared_ptr<const QuantisedConvKernel::Plans> QuantisedConvKernel::Plan(int64_t height, int64_t width) {
  return plans_.Get({height, width}, [&] {
    Require(CheckImage(shape_, height, width));
    QuantisedOptions options;
    options.traits = CurrentByteTraits();
    options.threads = threads_;
    auto plans = std::make_shared<Plans>();
    const auto make = [&](const auto& function, auto plan) {
      Require(function(shape_, weight_, bias_.data(), input_zero_point_, requantisation_, height, width, options,
                       plan.get()));
      return plan;
    };
    if (SuitsQuantisedDepthwise(shape_, height, width, threads_)) {
      plans->depthwise = make(MakeQuantisedDepthwisePlan, std::make_unique<QuantisedDepthwisePlan>());
    } else {
      plans->convolution = make(MakeQuantisedConvolutionPlan, std::make_unique<QuantisedConvolutionPlan>());
    }
    return plans;
  });
}

template <class Chosen, class Run>
void QuantisedConvKernel::Compute(Ort::KernelContext& context, const TensorInput<uint8_t>& input, const Chosen& plan,
                                  const Run& run) {
  // Not from the plan, which may be that of the turned image.
  const ImageShape image = ImageOf(input.shape);
  const PanelLayout layout = MakePanelLayout(shape_.output_height(image.height), shape_.output_width(image.width));
  const std::vector<int64_t> output_shape =
      PanelShape<BytePanels>(rank_, image.images, layout, shape_.output_channels);
  const std::optional<TensorInput<uint8_t>> residual = GetTensorInput<uint8_t>(context, 4);
  Require(!residual || residual->shape == output_shape, "QuantisedConv: the residual has not the output's shape");
  Require(!residual || requantisation_.residual_scale != 0.0f, "QuantisedConv: a residual without residual_scale");

  int32_t* const output = LanesOf(output_.Get<uint8_t>(context, output_shape));
  const int32_t* const add = residual ? LanesOf(residual->data) : nullptr;
  const ImageStrides strides{QuantisedStride(plan.input, shape_.input_channels),
                             QuantisedStride(plan.output, shape_.output_channels)};
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_lanes(), threads_);
  ParallelStealing(context, plan.items(image.images), threads_, plan.together(),
                   [&](int64_t first, int64_t last, int64_t part) {
                     run(plan, LanesOf(input.data), add, output, strides, first, last, LanesOf(scratch.of(part)));
                   });
}

void QuantisedConvKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedConv: no input");
  RequireAxes("QuantisedConv", rank_, input->shape.size());
  const ImageShape image = RequirePanel<BytePanels>("QuantisedConv", input->shape, shape_.input_channels);
  const std::shared_ptr<const Plans> plans = Plan(image.height, image.width);
  if (plans->depthwise) {
    Compute(context, *input, *plans->depthwise, RunQuantisedDepthwise);
  } else {
    Compute(context, *input, *plans->convolution, RunQuantisedConvolution);
  }
}

void QuantisedConvOp::Infer(Ort::ShapeInferContext& context) { InferConvolution<BytePanels>(kName, context); }

}  // namespace gossamer
