// The bytes of a sparse weight in a file: the one definition, called by the op library, the tests and the benches.
// docs/format.md describes them for readers; the Python exporter writes the same bytes with numpy. This is version 1, of
// weights as they are; version 2, of coded levels, is coded_weight.h, and read by the same functions.
//
//   offset  size           field
//   0       4              "GSPW"
//   4       1              version, 1
//   5       1              position code: 0 bitmask, 1 gaps; of quads: 2 bitmask, 3 gaps
//   6       1              value type: 0 fp32, 1 fp16, 2 int8
//   7       1              rank of the weight, 1 to 8
//   8       8              number of kept weights, or of kept quads
//   16      8              bytes of the positions
//   24      4 x rank       shape; the first axis is the matrix's rows, all others together its columns
//   ...     as said        positions
//   ...     4, 2 or 1 x kept  values, in the order of the positions; of a quad four
//   end-4   4              CRC-32 of everything before
//
// All numbers are little-endian. Positions run through the matrix row by row.
//   bitmask: one bit a weight, lowest bit first; the bits after the last weight are zero.
//   quads: only of int8. A quad is four input channels (the second axis) at one place of the other axes, the last one filled
//   up with zeros; positions run through [row][quad of channels][other axes], as if each quad were a weight.
//   gaps: one byte g a kept weight: g < 255 zeros stand before it. 255 stands for 255 zeros with no kept weight after.
#ifndef GOSSAMER_FORMAT_SPARSE_WEIGHT_H_
#define GOSSAMER_FORMAT_SPARSE_WEIGHT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/status.h"

namespace gossamer {

enum class PositionCode : uint8_t { kBitmask = 0, kGaps = 1, kQuadBitmask = 2, kQuadGaps = 3 };
enum class ValueType : uint8_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };

// Limits that keep what a small hostile file can make a reader allocate within reason.
inline constexpr size_t kMaximumRank = 8;
inline constexpr uint64_t kMaximumRows = uint64_t{1} << 22;
inline constexpr uint64_t kMaximumElements = uint64_t{1} << 36;

// A decoded weight: compressed rows. Columns ascend within a row.
template <class Value>
struct SparseMatrix {
  std::vector<int64_t> shape;
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<uint32_t> row_start;  // rows + 1 entries
  std::vector<uint32_t> column;     // one a kept weight
  std::vector<Value> value;         // one a kept weight

  size_t kept() const { return value.size(); }
};
using SparseWeight = SparseMatrix<float>;
using SparseByteWeight = SparseMatrix<int8_t>;

// Checks every field, then decodes. After a problem `weight` is unspecified but valid. Reads only bytes[0 .. size). Refuses
// int8 where floats are asked for, and floats where int8 is. Large coded weights are shared among `threads`.
Status DecodeSparseWeight(const uint8_t* bytes, size_t size, SparseWeight* weight, int64_t threads = 1);
Status DecodeSparseWeight(const uint8_t* bytes, size_t size, SparseByteWeight* weight, int64_t threads = 1);

// Encodes the nonzeros of a dense weight; the position code is the one that takes fewer bytes, unless it is given.
std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const float* dense, ValueType value_type);
std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const float* dense, ValueType value_type,
                                        PositionCode position_code);
std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const int8_t* dense);
std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const int8_t* dense,
                                        PositionCode position_code);

// The nonzeros of a dense weight as compressed rows.
template <class Value>
SparseMatrix<Value> SparseWeightFromDense(const std::vector<int64_t>& shape, const Value* dense) {
  SparseMatrix<Value> weight;
  weight.shape = shape;
  weight.rows = shape[0];
  weight.columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) weight.columns *= shape[axis];
  weight.row_start.push_back(0);
  for (int64_t row = 0; row < weight.rows; ++row) {
    for (int64_t column = 0; column < weight.columns; ++column) {
      const Value value = dense[row * weight.columns + column];
      if (value == 0) continue;
      weight.column.push_back(static_cast<uint32_t>(column));
      weight.value.push_back(value);
    }
    weight.row_start.push_back(static_cast<uint32_t>(weight.column.size()));
  }
  return weight;
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_SPARSE_WEIGHT_H_
