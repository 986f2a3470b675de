// Lays the nonzeros of a weight out as the kernels read them: blocks of channels, slices of rows, groups of rows (RowSlice).
#ifndef GOSSAMER_KERNELS_STREAM_PACKER_H_
#define GOSSAMER_KERNELS_STREAM_PACKER_H_

#include <cstdint>

#include "kernels/product_plan.h"
#include "kernels/staging.h"

namespace gossamer {

// Kernels may read up to one vector past the last entry or the last staged pixel.
inline constexpr int64_t kSlackFloats = 32;

// Blocks of `block_channels` channels that a convolution is cut into, at most.
int64_t CountBlocks(const ConvolutionShape& shape, int64_t block_channels);

// Sets the plan's blocks and adds its slices, for every window of the staging. `row_quantum` and `finished_rows` are those of
// PlanOptions.
template <class Value>
void PackStreams(const SparseMatrix<Value>& weight, const Staging& staging, int64_t block_channels, int64_t row_quantum,
                 int64_t finished_rows, ProductPlan* plan);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_STREAM_PACKER_H_
