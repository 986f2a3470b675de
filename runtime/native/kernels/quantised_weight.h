// The weights of four neighbouring input channels at one position of a kernel, which are multiplied at once. A quad is kept
// where any of its weights is not zero.
#ifndef GOSSAMER_KERNELS_QUANTISED_WEIGHT_H_
#define GOSSAMER_KERNELS_QUANTISED_WEIGHT_H_

#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/convolution_shape.h"

namespace gossamer {

inline constexpr int64_t kQuad = 4;

struct Quad {
  int8_t weight[kQuad];
};
using QuadWeight = SparseMatrix<Quad>;

inline int64_t QuadsOf(int64_t channels) { return (channels + kQuad - 1) / kQuad; }
// The quad of a channel.
inline int64_t QuadOf(int64_t channel) { return static_cast<int64_t>(static_cast<uint64_t>(channel) / kQuad); }

// The same convolution over lanes of four channels. Groups are joined until lanes and groups of four output channels belong
// to one each; weights between joined ones are zeros, as others are.
ConvolutionShape QuadShape(const ConvolutionShape& shape);

// Whether processors that multiply pairs of bytes into 16 bits lose a bit of either pair for some input.
bool PairsOverflow(const Quad& quad);

// The quads of a weight, for QuadShape(shape). With `split_pairs`, quads whose pairs overflow, on ARM together with
// those of any other quad, are several at the same place.
QuadWeight QuadsFromWeight(const ConvolutionShape& shape, const SparseByteWeight& weight, bool split_pairs);

// Of each row the largest magnitude that its sum can have: 255 * sum |weight| + |bias|. `bias` may be null.
std::vector<int64_t> LargestSums(const SparseByteWeight& weight, const int32_t* bias);

// Whether no sum of any row can leave 32 bits: 255 * sum |weight| + |bias| < 2^31. `bias` may be null.
Status CheckSums(const SparseByteWeight& weight, const int32_t* bias);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_WEIGHT_H_
