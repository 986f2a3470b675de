#include "kernels/half_weight.h"

#include <algorithm>
#include <cmath>

namespace gossamer {

HalfWeight HalvesFromWeight(const SparseWeight& weight, std::vector<float>* scale) {
  HalfWeight halves;
  halves.shape = weight.shape;
  halves.rows = weight.rows;
  halves.columns = weight.columns;
  halves.row_start = weight.row_start;
  halves.column = weight.column;
  halves.value.reserve(weight.kept());
  scale->clear();
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    const uint32_t begin = weight.row_start[row], end = weight.row_start[row + 1];
    float largest = 0.0f;
    for (uint32_t i = begin; i < end; ++i) {
      if (std::isfinite(weight.value[i])) largest = std::max(largest, std::abs(weight.value[i]));
    }
    const int exponent = largest > 0.0f ? std::ilogb(largest) : 0;
    for (uint32_t i = begin; i < end; ++i) halves.value.push_back({HalfFromFloat(std::ldexp(weight.value[i], -exponent))});
    scale->push_back(std::ldexp(1.0f, exponent));
  }
  return halves;
}

}  // namespace gossamer
