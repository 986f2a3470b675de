// Runs a planned sparse convolution of bytes on panels.
#ifndef GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_H_
#define GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_H_

#include <cstdint>

#include "kernels/convolution.h"
#include "kernels/quantised_convolution_plan.h"

namespace gossamer {

// Of the instruction set that the dispatch chooses now. With `quads` false, as of a processor that has no instruction for
// four products at once, where there is code for such ones.
ByteTraits CurrentByteTraits(bool quads = true);

// As RunConvolution. Tensors are of lanes of four bytes, and so are strides; `scratch` is plan.scratch_lanes() of them.
void RunQuantisedConvolution(const QuantisedConvolutionPlan& plan, const int32_t* input, const int32_t* residual,
                             int32_t* output, const ImageStrides& strides, int64_t first, int64_t last,
                             int32_t* scratch);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_CONVOLUTION_H_
