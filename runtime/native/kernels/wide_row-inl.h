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
template <class Lane>
HWY_NOINLINE void StageWideRows(const TilePlan& tile, const Lane* HWY_RESTRICT image, int64_t image_pitch,
                                int64_t channels, int64_t channel_lanes, int64_t ahead, Lane padding,
                                Lane* HWY_RESTRICT staged) {
  const FloatTag f;
  const hn::CappedTag<Lane, 16> d;
  const auto shifted = [&](hn::Vec<decltype(d)> before, hn::Vec<decltype(d)> v) HWY_ATTR {
    return hn::BitCast(d, LeftNeighbors(hn::BitCast(f, before), hn::BitCast(f, v)));
  };
  const StageRow* const lowest = &tile.wide_rows.back();
  const int64_t lanes = static_cast<int64_t>(kLanes);
  for (int64_t channel = 0; channel < channels; ++channel, image += image_pitch, staged += channel_lanes) {
    for (const StageRow& row : tile.wide_rows) {
      Lane* HWY_RESTRICT to = staged + row.target;
      if (row.source < 0) {
        FillLanes(to, row.count + 2, padding);
        continue;
      }
      const Lane* HWY_RESTRICT from = image + row.source;
      auto before = hn::Set(d, row.left < 0 ? padding : image[row.left]);
      int64_t pixel = 0;
      for (; pixel + lanes <= row.count; pixel += lanes) {
        if (&row == lowest) hwy::Prefetch(from + ahead + pixel);
        const auto pixels = hn::LoadU(d, from + pixel);
        hn::StoreU(shifted(before, pixels), d, to + pixel);
        before = pixels;
      }
      const auto rest = hn::LoadN(d, from + pixel, static_cast<size_t>(row.count - pixel));
      hn::StoreU(shifted(before, rest), d, to + pixel);
      to[row.count + 1] = row.right < 0 ? padding : image[row.right];
    }
  }
}

// Zeros move in at the end.
template <class Product, size_t kFull, size_t kTail>
HWY_INLINE void ShiftRowLeft(SumRow<Product, kFull, kTail>& sums) {
  using Row = SumRow<Product, kFull, kTail>;
  const FloatTag f;
  const typename Row::Tag d;
  const auto shifted = [&](typename Row::Vector v, typename Row::Vector after) HWY_ATTR {
    return hn::BitCast(d, RightNeighbors(hn::BitCast(f, v), hn::BitCast(f, after)));
  };
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kFull; ++i) {
    auto after = hn::Zero(d);
    if (i + 1 < kFull) {
      after = sums.full[i + 1];
    } else if constexpr (kTail != 0) {
      after = sums.WidenedTail();
    }
    sums.full[i] = shifted(sums.full[i], after);
  }
  if constexpr (kTail != 0) {
    sums.tail = hn::ResizeBitCast(typename Row::TailTag(), shifted(sums.WidenedTail(), hn::Zero(d)));
  }
}

// The first lanes of a longer row.
template <class Row, class Longer>
HWY_INLINE Row FirstLanes(const Longer& longer) {
  constexpr size_t kFull = Row::kLaneCount / kLanes;
  Row row;
  GOSSAMER_UNROLL
  for (size_t i = 0; i < kFull; ++i) row.full[i] = longer.full[i];
  if constexpr (Row::kLaneCount % kLanes != 0) {
    const typename Row::TailTag tag;
    if constexpr (kFull < Longer::kLaneCount / kLanes) {
      row.tail = hn::ResizeBitCast(tag, longer.full[kFull]);
    } else {
      row.tail = hn::ResizeBitCast(tag, longer.tail);
    }
  }
  return row;
}

// The stream's first part is the right column, its last the left one: staging gives them the opposite shifts.
template <class Call, size_t kPixels>
HWY_NOINLINE const uint8_t* WideRows(const Call& call) {
  using Product = typename CallOf<Call>::Product;
  constexpr RowSplit kOut = SplitRow(kPixels);
  constexpr RowSplit kIn = SplitRow(kPixels + 4);
  const uint8_t* HWY_RESTRICT entry = call.entries;
  const uint32_t* HWY_RESTRICT pairs = call.counts;
  for (int64_t i = 0; i < call.groups; ++i, pairs += 3) {
    const int32_t row = call.rows[i];
    typename Product::Lane* accumulators = call.accumulators + row * call.accumulator_pitch;
    SumRow<Product, kIn.full, kIn.tail> sums[1];
    sums[0].Fill(0);
    entry = MulAddPairs(entry, pairs[0], call.input, sums);
    ShiftRowLeft(sums[0]);
    entry = MulAddPairs(entry, pairs[1], call.input, sums);
    ShiftRowLeft(sums[0]);
    entry = MulAddPairs(entry, pairs[2], call.input, sums);
    auto finished = FirstLanes<SumRow<Product, kOut.full, kOut.tail>>(sums[0]);
    if (call.first) {
      finished.AddAll(call.bias[row]);
    } else {
      finished.Add(accumulators);
    }
    EndRow(call, row, finished);
  }
  return entry;
}

template <class Call, size_t... kQuarter>
constexpr std::array<RowKernel<Call>, sizeof...(kQuarter)> WideTable(std::index_sequence<kQuarter...>) {
  return {&WideRows<Call, 4 * (kQuarter + 1)>...};
}

// The kernel for `lanes` (a multiple of 4) pixels.
template <class Call>
HWY_INLINE RowKernel<Call> WideKernel(int64_t lanes) {
  using Quarters = std::make_index_sequence<static_cast<size_t>(CallOf<Call>::kTraits.wide_lanes()) / 4>;
  static constexpr auto kTable = WideTable<Call>(Quarters());
  return kTable[static_cast<size_t>(lanes / 4 - 1)];
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_WIDE_ROW_INL_H_
