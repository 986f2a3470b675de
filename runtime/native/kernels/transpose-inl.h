// Transposition between [token][feature] and [feature][token].
#if defined(GOSSAMER_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#undef GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#else
#define GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// to[column][row] = from[row][column] for 4 rows and 4 columns.
HWY_INLINE void Transpose4x4(const float* HWY_RESTRICT from, int64_t from_pitch, float* HWY_RESTRICT to,
                             int64_t to_pitch) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t row = 0; row < 4; ++row) {
    for (int64_t column = 0; column < 4; ++column) to[column * to_pitch + row] = from[row * from_pitch + column];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> pairs;
  const auto row0 = hn::LoadU(d, from);
  const auto row1 = hn::LoadU(d, from + from_pitch);
  const auto row2 = hn::LoadU(d, from + 2 * from_pitch);
  const auto row3 = hn::LoadU(d, from + 3 * from_pitch);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, row0, row1));    // 00 10 01 11
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, row2, row3));    // 20 30 21 31
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, row0, row1));   // 02 12 03 13
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, row2, row3));   // 22 32 23 33
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + to_pitch);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * to_pitch);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * to_pitch);
#endif
}

// to[column][row] = from[row][column]
inline HWY_NOINLINE void Transpose(const float* HWY_RESTRICT from, int64_t from_pitch, int64_t rows, int64_t columns,
                                   float* HWY_RESTRICT to, int64_t to_pitch) {
  const int64_t whole_rows = rows / 4 * 4;
  const int64_t whole_columns = columns / 4 * 4;
  for (int64_t column = 0; column < whole_columns; column += 4) {
    for (int64_t row = 0; row < whole_rows; row += 4) {
      Transpose4x4(from + row * from_pitch + column, from_pitch, to + column * to_pitch + row, to_pitch);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = row < whole_rows ? whole_columns : 0; column < columns; ++column) {
      to[column * to_pitch + row] = from[row * from_pitch + column];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_TRANSPOSE_INL_H_
