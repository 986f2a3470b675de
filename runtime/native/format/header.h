// What the headers of both versions of a sparse weight have in common.
#ifndef GOSSAMER_FORMAT_HEADER_H_
#define GOSSAMER_FORMAT_HEADER_H_

#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"

namespace gossamer {

inline constexpr uint8_t kMagic[4] = {'G', 'S', 'P', 'W'};
inline constexpr size_t kChecksumBytes = 4;

inline Status CheckValueType(ValueType type, float) {
  if (type != ValueType::kInt8) return Status::Ok();
  return Status::Problem("sparse weight: holds int8 values, expected fp32 or fp16; is it one for a quantised op?");
}

inline Status CheckValueType(ValueType type, int8_t) {
  if (type == ValueType::kInt8) return Status::Ok();
  return Status::Problem("sparse weight: holds fp32 or fp16 values, expected int8; is it one for an op of floats?");
}

// Gives a weight its shape, rows and columns; `elements` are rows times columns.
template <class Value>
Status SetShape(const std::vector<uint64_t>& extents, SparseMatrix<Value>* weight, uint64_t* elements) {
  weight->shape.clear();
  *elements = 1;
  for (const uint64_t extent : extents) {
    if (extent == 0) return Status::Problem("sparse weight: an axis of the shape is 0");
    if (extent > kMaximumElements / *elements) return Status::Problem("sparse weight: the shape is too large");
    *elements *= extent;
    weight->shape.push_back(static_cast<int64_t>(extent));
  }
  if (static_cast<uint64_t>(weight->shape[0]) > kMaximumRows) {
    return Status::Problem("sparse weight: more than 2^22 rows");
  }
  weight->rows = weight->shape[0];
  weight->columns = static_cast<int64_t>(*elements) / weight->rows;
  if (weight->columns > int64_t{UINT32_MAX}) return Status::Problem("sparse weight: more than 2^32 columns");
  return Status::Ok();
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_HEADER_H_
