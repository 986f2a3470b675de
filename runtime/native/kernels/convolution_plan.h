// A sparse convolution of floats made ready for one processor and one image size.
#ifndef GOSSAMER_KERNELS_CONVOLUTION_PLAN_H_
#define GOSSAMER_KERNELS_CONVOLUTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/epilogue.h"
#include "kernels/product_plan.h"

namespace gossamer {

struct ConvolutionPlan : ProductPlan {
  Epilogue epilogue;
  std::vector<float> bias;
  Arithmetic arithmetic = Arithmetic::kFloat;
  std::vector<float> scale;  // of each row, what its sums of halves are multiplied by; empty for floats
};

// `bias` holds output_channels floats or is null. Of a convolution that GoesAlongOneColumn, the plan is that of the
// turned one. Needs CheckConvolution and CheckImage to have passed.
Status MakeConvolutionPlan(const ConvolutionShape& shape, const SparseWeight& weight, const float* bias,
                           const Epilogue& epilogue, int64_t height, int64_t width, const PlanOptions& options,
                           ConvolutionPlan* plan);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_CONVOLUTION_PLAN_H_
