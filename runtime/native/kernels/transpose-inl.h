// Transposition between [token][feature] and [feature][token].
#if defined(GOSSAMER_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#undef GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#else
#define GOSSAMER_KERNELS_TRANSPOSE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <bool kAdd, class Lane, class Staged>
HWY_INLINE void TransposeOne(Lane value, int64_t place, const Lane* add, Staged* to) {
  if constexpr (kAdd) value += add[place];
  StoreStaged(value, to + place);
}

#if HWY_TARGET != HWY_SCALAR
// Four lanes of each of the rows 0, 4, 8, ... one in each 128-bit block.
template <class D>
HWY_INLINE hn::Vec<D> GatherRows(D d, const hn::TFromD<D>* HWY_RESTRICT from, int64_t pitch) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    const int64_t rows = static_cast<int64_t>(hn::MaxLanes(half));
    return hn::Combine(d, GatherRows(half, from + rows * pitch, pitch), GatherRows(half, from, pitch));
  }
}

// to[column][row] = from[row][column] for as many rows as a vector of D has lanes and any number of columns. Blocks of 4
// x 4 are transposed in the 128-bit parts of a vector, so that whole vectors are stored. With kAdd, += what `add` holds
// at the place of each result; `add` may be `to`.
template <bool kAdd, class D, class Staged, class Lane = hn::TFromD<D>>
HWY_INLINE void TransposeStrip(D d, const Lane* HWY_RESTRICT from, int64_t from_pitch, int64_t columns,
                               const Lane* add, Staged* to, int64_t to_pitch) {
  const hn::RepartitionToWide<D> pairs;
  const auto store = [&](hn::Vec<decltype(pairs)> wide, int64_t column) HWY_ATTR {
    hn::Vec<D> v = hn::BitCast(d, wide);
    if constexpr (kAdd) v = hn::Add(v, hn::LoadU(d, add + column * to_pitch));
    StoreStaged(v, d, to + column * to_pitch);
  };
  int64_t column = 0;
  for (; column + 4 <= columns; column += 4) {
    const auto row0 = GatherRows(d, from + column, from_pitch);
    const auto row1 = GatherRows(d, from + column + from_pitch, from_pitch);
    const auto row2 = GatherRows(d, from + column + 2 * from_pitch, from_pitch);
    const auto row3 = GatherRows(d, from + column + 3 * from_pitch, from_pitch);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, row0, row1));   // 00 10 01 11
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, row2, row3));   // 20 30 21 31
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, row0, row1));  // 02 12 03 13
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, row2, row3));  // 22 32 23 33
    store(hn::InterleaveLower(pairs, low01, low23), column);
    store(hn::InterleaveUpper(pairs, low01, low23), column + 1);
    store(hn::InterleaveLower(pairs, high01, high23), column + 2);
    store(hn::InterleaveUpper(pairs, high01, high23), column + 3);
  }
  for (; column < columns; ++column) {
    for (int64_t row = 0; row < static_cast<int64_t>(hn::MaxLanes(d)); ++row) {
      TransposeOne<kAdd>(from[row * from_pitch + column], column * to_pitch + row, add, to);
    }
  }
}
#endif

template <bool kAdd, class Lane, class Staged>
HWY_NOINLINE void TransposeAny(const Lane* HWY_RESTRICT from, int64_t from_pitch, int64_t rows, int64_t columns,
                               const Lane* add, Staged* to, int64_t to_pitch) {
  int64_t row = 0;
#if HWY_TARGET != HWY_SCALAR
  // Strip by strip: a strip reads its rows side by side and every line of the cache once. Walking down all rows of four
  // columns instead would read rows whose pitch is a large power of two from the second-level cache, four times.
  const auto strips = [&](auto d) HWY_ATTR {
    const int64_t lanes = static_cast<int64_t>(hn::MaxLanes(d));
    for (; row + lanes <= rows; row += lanes) {
      TransposeStrip<kAdd>(d, from + row * from_pitch, from_pitch, columns, kAdd ? add + row : nullptr, to + row,
                           to_pitch);
    }
  };
  strips(hn::CappedTag<Lane, 16>());
  strips(hn::FixedTag<Lane, 4>());
#endif
  for (; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      TransposeOne<kAdd>(from[row * from_pitch + column], column * to_pitch + row, add, to);
    }
  }
}

// to[column][row] = from[row][column]
template <class Lane, class Staged>
HWY_INLINE void Transpose(const Lane* from, int64_t from_pitch, int64_t rows, int64_t columns, Staged* to,
                          int64_t to_pitch) {
  TransposeAny<false, Lane>(from, from_pitch, rows, columns, nullptr, to, to_pitch);
}

// to[column][row] = from[row][column] + add[column][row]; `add` may be `to`.
template <class Lane>
HWY_INLINE void TransposeAdd(const Lane* from, int64_t from_pitch, int64_t rows, int64_t columns, const Lane* add,
                             Lane* to, int64_t to_pitch) {
  TransposeAny<true, Lane>(from, from_pitch, rows, columns, add, to, to_pitch);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_TRANSPOSE_INL_H_
