#include "ort/quantised_pool.h"

#include "kernels/max_pool.h"
#include "kernels/quantised_average_pool.h"
#include "ort/lanes.h"
#include "ort/parallel.h"
#include "ort/pool_op.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {
namespace {

// The same pooling of lanes of four channels.
ConvolutionShape OfLanes(ConvolutionShape shape) {
  shape.input_channels = shape.output_channels = QuadsOf(shape.input_channels);
  return shape;
}

}  // namespace

QuantisedMaxPoolKernel::QuantisedMaxPoolKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : PoolKernel("QuantisedMaxPool", info, threads) {}

void QuantisedMaxPoolKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedMaxPool: no input");
  const ImageShape image = RequirePool<BytePanels>("QuantisedMaxPool", input->shape, rank_, shape_);
  MaxPoolPlan plan;
  Require(MakeMaxPoolPlan(OfLanes(shape_), image.height, image.width, threads_, &plan));
  int32_t* const output = LanesOf(output_.Get<uint8_t>(
      context, PanelShape<BytePanels>(rank_, image.images, plan.output, shape_.output_channels)));
  const ImageStrides strides{QuantisedStride(plan.input, shape_.input_channels),
                             QuantisedStride(plan.output, shape_.output_channels)};
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_floats(), threads_);
  ParallelStealing(context, plan.items(image.images), threads_, 1, [&](int64_t first, int64_t last, int64_t part) {
    RunQuantisedMaxPool(plan, LanesOf(input->data), output, strides, first, last, LanesOf(scratch.of(part)));
  });
}

void QuantisedMaxPoolOp::Infer(Ort::ShapeInferContext& context) { InferPool<BytePanels>(kName, context); }

QuantisedAveragePoolKernel::QuantisedAveragePoolKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : PoolKernel("QuantisedAveragePool", info, threads),
      scale_(RequireScale(info, "input_scale") / RequireScale(info, "output_scale")),
      input_zero_point_(ReadByte(info, "input_zero_point", 0)),
      output_zero_point_(ReadByte(info, "output_zero_point", 0)),
      counts_padding_(IntegerOr(info, "count_include_pad", int64_t{0}) != 0) {}

void QuantisedAveragePoolKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedAveragePool: no input");
  const ImageShape image = RequirePool<BytePanels>("QuantisedAveragePool", input->shape, rank_, shape_);
  AveragePoolPlan plan = MakeAveragePoolPlan(shape_, image.height, image.width, threads_);
  plan.scale = scale_;
  plan.input_zero_point = input_zero_point_;
  plan.output_zero_point = output_zero_point_;
  plan.counts_padding = counts_padding_;
  int32_t* const output = LanesOf(output_.Get<uint8_t>(
      context, PanelShape<BytePanels>(rank_, image.images, plan.output, shape_.output_channels)));
  const ImageStrides strides{QuantisedStride(plan.input, shape_.input_channels),
                             QuantisedStride(plan.output, shape_.output_channels)};
  ParallelStealing(context, plan.items(image.images), threads_, 1, [&](int64_t first, int64_t last, int64_t) {
    RunAveragePool(plan, LanesOf(input->data), output, strides, first, last);
  });
}

void QuantisedAveragePoolOp::Infer(Ort::ShapeInferContext& context) { InferPool<BytePanels>(kName, context); }

}  // namespace gossamer
