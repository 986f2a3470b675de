#include "kernels/convolution_plan.h"

#include "kernels/half_weight.h"
#include "kernels/staging.h"

namespace gossamer {

Status MakeConvolutionPlan(const ConvolutionShape& shape, const SparseWeight& weight, const float* bias,
                           const Epilogue& epilogue, int64_t height, int64_t width, const PlanOptions& options,
                           ConvolutionPlan* plan) {
  if (GoesAlongOneColumn(shape, height, width)) {
    return MakeConvolutionPlan(Turned(shape), weight, bias, epilogue, width, height, options, plan);
  }
  *plan = ConvolutionPlan();
  plan->epilogue = epilogue;
  plan->bias.assign(static_cast<size_t>(shape.output_channels), 0.0f);
  if (bias != nullptr) plan->bias.assign(bias, bias + shape.output_channels);
  plan->arithmetic = options.arithmetic;
  Staging staging;
  if (options.arithmetic == Arithmetic::kFloat) {
    return MakeProductPlan(shape, weight, height, width, options, plan, &staging);
  }
  PlanOptions unshifted = options;
  unshifted.column_shift = false;
  return MakeProductPlan(shape, HalvesFromWeight(weight, &plan->scale), height, width, unshifted, plan, &staging);
}

}  // namespace gossamer
