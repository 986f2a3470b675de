// Weights of products in fp16 (half_row-inl.h).
#ifndef GOSSAMER_KERNELS_HALF_WEIGHT_H_
#define GOSSAMER_KERNELS_HALF_WEIGHT_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "format/half.h"
#include "format/sparse_weight.h"

namespace gossamer {

using HalfWeight = SparseMatrix<Half>;

// Each row over a power of two, its element of `scale`, for which its largest weight is from 1 to 2, rounded to fp16: then every
// weight is off by at most 2^-11 of itself or, below 2^-14 of the largest, 2^-24 of that. What a layer's weights are as a whole,
// 1e-5 or 1e5, costs no digits.
HalfWeight HalvesFromWeight(const SparseWeight& weight, std::vector<float>* scale);

// Whether rows are long enough, and pixels read often enough, that what takes longer in fp16 is made up for: the ends of rows and
// staging. By counts under qemu of ResNet-50's layers (docs/kernels.md).
inline bool HalvesPay(const SparseWeight& weight, int64_t input_channels) {
  return static_cast<int64_t>(weight.kept()) >= 8 * std::max(weight.rows, input_channels);
}

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_HALF_WEIGHT_H_
