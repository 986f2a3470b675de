// The matrices that the mixing coder sees: of a weight, perhaps with its first axes swapped, and of a bias.
#ifndef GOSSAMER_FORMAT_LEVEL_MATRIX_H_
#define GOSSAMER_FORMAT_LEVEL_MATRIX_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/coded_weight.h"

namespace gossamer {

// A matrix of levels as it is coded, row by row.
struct LevelMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t places = 1;      // neighbouring columns that make up a kernel; columns is a multiple of it
  int64_t grid = 0;        // 0, or columns of the image that a row's columns are: c - grid lies above c
  uint32_t kept = 0;       // nonzeros
  int32_t largest = 0;     // magnitude
  std::vector<int32_t> levels;
};

// The matrix that the mixing coder sees.
inline LevelMatrix MatrixOf(const std::vector<int64_t>& shape, LevelCoder coder) {
  LevelMatrix matrix;
  int64_t columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) columns *= shape[axis];
  matrix.rows = shape[0];
  matrix.places = shape.size() > 1 ? columns / shape[1] : 1;
  matrix.columns = columns;
  if (coder == LevelCoder::kSwappedMixing) {
    matrix.rows = columns / matrix.places;
    matrix.columns = shape[0] * matrix.places;
  }
  return matrix;
}

// Kernels of `places` numbers, [rows][columns] of them, as [columns][rows].
inline std::vector<int32_t> Swapped(const int32_t* levels, int64_t rows, int64_t columns, int64_t places) {
  std::vector<int32_t> swapped(static_cast<size_t>(rows * columns * places));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      std::copy_n(levels + (row * columns + column) * places, places, swapped.data() + (column * rows + row) * places);
    }
  }
  return swapped;
}

// The levels of a bias as a matrix of one row.
inline LevelMatrix BiasMatrix(int64_t rows) {
  LevelMatrix matrix;
  matrix.rows = 1;
  matrix.columns = rows;
  return matrix;
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_LEVEL_MATRIX_H_
