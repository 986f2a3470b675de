// Runs a planned sparse convolution on panels.
#ifndef GOSSAMER_KERNELS_CONVOLUTION_H_
#define GOSSAMER_KERNELS_CONVOLUTION_H_

#include <cstdint>

#include "kernels/convolution_plan.h"

namespace gossamer {

// Of the instruction set that the dispatch chooses now.
KernelTraits CurrentKernelTraits(Arithmetic arithmetic = Arithmetic::kFloat);
const char* CurrentTargetName();

// Floats from one image of a batch to the next, for each of the tensors.
struct ImageStrides {
  int64_t input = 0;
  int64_t output = 0;
};

// Computes items [first, last) of plan.items(images): in the plan's order. `residual` has the
// output's layout and may be null or the output itself. `scratch` is this thread's: plan.scratch_floats() floats,
// aligned to 64 bytes. The panels' images are aligned to 64 bytes for speed only.
void RunConvolution(const ConvolutionPlan& plan, const float* input, const float* residual, float* output,
                    const ImageStrides& strides, int64_t first, int64_t last, float* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_CONVOLUTION_H_
