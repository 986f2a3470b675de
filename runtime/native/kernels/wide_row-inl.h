// 3x3 (and 1x3) convolution of images whose rows are cut into segments, so that a segment's neighbours lie in other tiles.
//
// A row is staged once with one pixel more on either side: staged lane x is the pixel to the left of output pixel x. Then
//   output[x] = left[x] + middle[x + 1] + right[x + 2]
// for the sums over the kernel's three columns, which is Horner's scheme: sum right, shift to the left by a lane, sum
// middle on top, shift, sum left on top. No lane has to be masked and there is one set of accumulators.
#if defined(GOSSAMER_KERNELS_WIDE_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_WIDE_ROW_INL_H_
#undef GOSSAMER_KERNELS_WIDE_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_WIDE_ROW_INL_H_
#endif

#include <array>
#include <utility>

#include "hwy/highway.h"
#include "kernels/column_shift-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/finish-inl.h"
#include "kernels/neighbor-inl.h"
#include "kernels/spmm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Stages the channels of a block, each as the tile's rows with a pixel more on either side. The rows are shifted by a lane
// in registers: storing them where they belong instead would let every vector cross two cache lines. Such images are larger
// than the caches; fetching what lies `ahead` floats from the lowest row takes 12% off a layer of 64 x 224 x 224.
HWY_NOINLINE void StageWideRows(const TilePlan& tile, const float* HWY_RESTRICT image, int64_t image_pitch,
                                int64_t channels, int64_t channel_floats, int64_t ahead,
                                float* HWY_RESTRICT staged) {
  const FloatTag d;
  const StageRow* const lowest = &tile.wide_rows.back();
  const int64_t lanes = static_cast<int64_t>(kLanes);
  for (int64_t channel = 0; channel < channels; ++channel, image += image_pitch, staged += channel_floats) {
    for (const StageRow& row : tile.wide_rows) {
      float* HWY_RESTRICT to = staged + row.target;
      if (row.source < 0) {
        FillZeros(to, row.count + 2);
        continue;
      }
      const float* HWY_RESTRICT from = image + row.source;
      FloatVector before = hn::Set(d, row.left < 0 ? 0.0f : image[row.left]);
      int64_t pixel = 0;
      for (; pixel + lanes <= row.count; pixel += lanes) {
        if (&row == lowest) hwy::Prefetch(from + ahead + pixel);
        const FloatVector pixels = hn::LoadU(d, from + pixel);
        hn::StoreU(LeftNeighbors(before, pixels), d, to + pixel);
        before = pixels;
      }
      const FloatVector rest = hn::LoadN(d, from + pixel, static_cast<size_t>(row.count - pixel));
      hn::StoreU(LeftNeighbors(before, rest), d, to + pixel);
      to[row.count + 1] = row.right < 0 ? 0.0f : image[row.right];
    }
  }
}

// Zeros move in at the end.
template <size_t kFull, size_t kTail>
HWY_INLINE void ShiftRowLeft(AccumulatorRow<kFull, kTail>& sums) {
  const FloatTag d;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kFull; ++i) {
    FloatVector after = hn::Zero(d);
    if (i + 1 < kFull) {
      after = sums.full[i + 1];
    } else if constexpr (kTail != 0) {
      after = sums.WidenedTail();
    }
    sums.full[i] = RightNeighbors(sums.full[i], after);
  }
  if constexpr (kTail != 0) {
    const FloatVector shifted = RightNeighbors(sums.WidenedTail(), hn::Zero(d));
    sums.tail = hn::ResizeBitCast(typename AccumulatorRow<kFull, kTail>::TailTag(), shifted);
  }
}

// The first lanes of a longer row.
template <size_t kFull, size_t kTail, size_t kLongFull, size_t kLongTail>
HWY_INLINE AccumulatorRow<kFull, kTail> FirstLanes(const AccumulatorRow<kLongFull, kLongTail>& longer) {
  AccumulatorRow<kFull, kTail> row;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kFull; ++i) row.full[i] = longer.full[i];
  if constexpr (kTail != 0) {
    const typename AccumulatorRow<kFull, kTail>::TailTag tag;
    if constexpr (kFull < kLongFull) {
      row.tail = hn::ResizeBitCast(tag, longer.full[kFull]);
    } else {
      row.tail = hn::ResizeBitCast(tag, longer.tail);
    }
  }
  return row;
}

// The stream's first part is the right column, its last the left one: staging gives them the opposite shifts.
template <size_t kPixels>
HWY_NOINLINE const uint8_t* WideRows(const RowCall& call) {
  constexpr RowSplit kOut = SplitRow(kPixels);
  constexpr RowSplit kIn = SplitRow(kPixels + 4);
  const uint8_t* HWY_RESTRICT entry = call.entries;
  const uint32_t* HWY_RESTRICT pairs = call.counts;
  for (int64_t i = 0; i < call.groups; ++i, pairs += 3) {
    const int32_t row = call.rows[i];
    float* accumulators = call.accumulators + row * call.accumulator_pitch;
    AccumulatorRow<kIn.full, kIn.tail> sums[1];
    sums[0].Fill(0.0f);
    entry = MulAddPairs(entry, pairs[0], call.input, sums);
    ShiftRowLeft(sums[0]);
    entry = MulAddPairs(entry, pairs[1], call.input, sums);
    ShiftRowLeft(sums[0]);
    entry = MulAddPairs(entry, pairs[2], call.input, sums);
    auto finished = FirstLanes<kOut.full, kOut.tail>(sums[0]);
    if (call.first) {
      finished.AddAll(call.bias[row]);
    } else {
      finished.Add(accumulators);
    }
    if (call.last) {
      FinishRow(call, row, finished);
    } else {
      finished.Store(accumulators);
    }
  }
  return entry;
}

template <size_t... kQuarter>
constexpr std::array<RowKernel, sizeof...(kQuarter)> WideTable(std::index_sequence<kQuarter...>) {
  return {&WideRows<4 * (kQuarter + 1)>...};
}

// The kernel for `lanes` (a multiple of 4) pixels.
inline RowKernel WideKernel(int64_t lanes) {
  using Quarters = std::make_index_sequence<static_cast<size_t>(Traits().wide_lanes()) / 4>;
  static constexpr auto kTable = WideTable(Quarters());
  return kTable[static_cast<size_t>(lanes / 4 - 1)];
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_WIDE_ROW_INL_H_
