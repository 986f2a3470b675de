#include "ort/panel_max_pool.h"

#include <algorithm>

#include "kernels/max_pool.h"
#include "ort/attributes.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {
namespace {

template <class Source>
ConvolutionAttributes ReadPool(const Source& source) {
  ConvolutionAttributes attributes = ReadConvolution(source);
  attributes.shape.input_channels = attributes.shape.output_channels = IntegerOr(source, "channels", int64_t{0});
  attributes.shape.groups = 1;
  const ConvolutionShape& shape = attributes.shape;
  Require(CheckNumbers(shape));
  Require(std::max(shape.pad_top, shape.pad_bottom) < shape.kernel_height &&
              std::max(shape.pad_left, shape.pad_right) < shape.kernel_width,
          "PanelMaxPool: pads must be smaller than kernel_shape, for there would be nothing to take the maximum of");
  return attributes;
}

}  // namespace

PanelMaxPoolKernel::PanelMaxPoolKernel(const Ort::ConstKernelInfo& info, int64_t threads) : threads_(threads) {
  RequireExplicitPadding(info);
  const ConvolutionAttributes attributes = ReadPool(info);
  shape_ = attributes.shape;
  rank_ = attributes.axes + 2;
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (KnowsImage(known)) Require(CheckImage(shape_, ImageOf(known).height, ImageOf(known).width));
  RequireKnownPanel("PanelMaxPool", known, shape_.input_channels);
}

void PanelMaxPoolKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "PanelMaxPool: no input");
  Require(input->shape.size() == rank_, "PanelMaxPool: kernel_shape has not one number for each axis of the input");
  const ImageShape image = RequirePanel("PanelMaxPool", input->shape, shape_.input_channels);
  Require(CheckImage(shape_, image.height, image.width));
  MaxPoolPlan plan;
  Require(MakeMaxPoolPlan(shape_, image.height, image.width, threads_, &plan));
  const int64_t images = image.images;
  float* output = output_.Get(context, PanelShape(rank_, images, plan.output, shape_.output_channels));
  const ImageStrides strides{plan.input.image_stride(shape_.input_channels),
                             plan.output.image_stride(shape_.output_channels)};
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_floats(), threads_);
  ParallelStealing(context, plan.items(images), threads_, 1, [&](int64_t first, int64_t last, int64_t part) {
    RunMaxPool(plan, input->data, output, strides, first, last, scratch.of(part));
  });
}

void PanelMaxPoolOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const ConvolutionAttributes attributes = ReadPool(static_cast<const Ort::ShapeInferContext&>(context));
  if (!KnowsImage(input)) return;
  Require(input.size() == attributes.axes + 2, "PanelMaxPool: kernel_shape has not one number for each axis of the input");
  const ConvolutionShape& shape = attributes.shape;
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
