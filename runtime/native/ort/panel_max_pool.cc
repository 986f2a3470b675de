#include "ort/panel_max_pool.h"

#include "kernels/max_pool.h"
#include "ort/parallel.h"
#include "ort/pool_op.h"

namespace gossamer {

PanelMaxPoolKernel::PanelMaxPoolKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : PoolKernel("PanelMaxPool", info, threads) {}

void PanelMaxPoolKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "PanelMaxPool: no input");
  const ImageShape image = RequirePool<FloatPanels>("PanelMaxPool", input->shape, rank_, shape_);
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

void PanelMaxPoolOp::Infer(Ort::ShapeInferContext& context) { InferPool<FloatPanels>(kName, context); }

}  // namespace gossamer
