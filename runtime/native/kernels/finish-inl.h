// Stores finished sums: + residual, activation, and out of the accumulators' rows into the panel's.
#if defined(GOSSAMER_KERNELS_FINISH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_FINISH_INL_H_
#undef GOSSAMER_KERNELS_FINISH_INL_H_
#else
#define GOSSAMER_KERNELS_FINISH_INL_H_
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/activation-inl.h"
#include "kernels/clamp-inl.h"
#include "kernels/copy-inl.h"
#include "kernels/fetch.h"
#include "kernels/row_kernel.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One image row out of the accumulators: adds, clamps, stores exactly `count` pixels.
HWY_INLINE void FinishPixels(const Epilogue& epilogue, const float* HWY_RESTRICT sums, const float* residual,
                             float* output, int64_t count) {
  const FloatTag d;
  const FloatVector low = hn::Set(d, epilogue.lower);
  const FloatVector high = hn::Set(d, epilogue.upper);
  const auto finish = [&](FloatVector sum, FloatVector other) HWY_ATTR {
    return Clamped(hn::Add(sum, other), low, high);
  };
  const FloatVector zero = hn::Zero(d);
  ForEachVector(
      count,
      [&](int64_t i) HWY_ATTR {
        hn::StoreU(finish(hn::LoadU(d, sums + i), residual ? hn::LoadU(d, residual + i) : zero), d, output + i);
      },
      [&](int64_t i, size_t rest) HWY_ATTR {
        hn::StoreN(finish(hn::LoadU(d, sums + i), residual ? hn::LoadN(d, residual + i, rest) : zero), d, output + i,
                   rest);
      });
}

// Calls run(lane, pixel, count) for the pixels of a span whose lanes come in rows of call.row_lanes with leftovers at the
// end of each; lanes count from the tile's first.
template <class Call, class Run>
HWY_INLINE void ForEachImageRow(const Call& call, const Run& run) {
  const int64_t begin = call.span_begin;
  const int64_t end = begin + call.span_lanes;
  for (int64_t y = begin / call.row_lanes; y < call.image_rows; ++y) {
    const int64_t first = HWY_MAX(y * call.row_lanes, begin);
    const int64_t last = HWY_MIN(y * call.row_lanes + call.row_pixels, end);
    if (first >= end) break;
    if (first < last) run(first, y * call.row_pixels + first - y * call.row_lanes, last - first);
  }
}

// The pixels of the span's lanes, finished.
inline HWY_NOINLINE void FinishCompact(const RowCall& call, const float* HWY_RESTRICT sums, const float* residual,
                                       float* output) {
  ForEachImageRow(call, [&](int64_t lane, int64_t pixel, int64_t count) HWY_ATTR {
    FinishPixels(call.epilogue, sums + lane - call.span_begin, residual ? residual + pixel : nullptr, output + pixel,
                 count);
    if (!call.epilogue.is_clamp()) ActivateRow(call.epilogue, output + pixel, count);
  });
}

// Accumulator rows that are a whole register, or half of one, go to the panel straight from the registers: each row is
// stored whole and the next one overwrites what was too much; only the span's last row is stored in part. Going through
// memory instead costs about 20 cycles an image row, 8% of a 3x3 convolution at 14 x 14.
template <size_t kFull, size_t kTail>
HWY_INLINE bool StoreImageRows(const RowCall& call, const AccumulatorRow<kFull, kTail>& sums, float* output) {
  // A row's leftovers must not reach past the next row, or they could reach past the end of the channel.
  if (2 * call.row_pixels < call.row_lanes) return false;
  const FloatTag d;
  const int64_t rows = (call.span_lanes + call.row_lanes - 1) / call.row_lanes;
  float* to = output + call.span_begin / call.row_lanes * call.row_pixels;
  const size_t pixels = static_cast<size_t>(call.row_pixels);
  int64_t row = 0;
  const auto store = [&](auto tag, auto v) HWY_ATTR {
    if (++row < rows) {
      hn::StoreU(v, tag, to);
    } else if (row == rows) {
      hn::StoreN(v, tag, to, pixels);
    }
    to += pixels;
  };
  if (call.row_lanes == static_cast<int64_t>(kLanes) && kTail == 0) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kFull; ++i) store(d, sums.full[i]);
    return true;
  }
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kTail == 0 || kTail == kLanes / 2) {
    if (call.row_lanes == static_cast<int64_t>(kLanes / 2)) {
      const hn::Half<FloatTag> half;
      GOSSAMER_UNROLL
      for (size_t i = 0; i < kFull; ++i) {
        store(half, hn::LowerHalf(half, sums.full[i]));
        store(half, hn::UpperHalf(half, sums.full[i]));
      }
      if constexpr (kTail != 0) store(half, sums.tail);
      return true;
    }
  }
#endif
  return false;
}

template <class Accumulators>
HWY_INLINE void FinishRow(const RowCall& call, int64_t row, Accumulators& sums) {
  float* output = call.output + row * call.output_pitch;
  const float* residual = call.residual ? call.residual + row * call.output_pitch : nullptr;
  if (call.compact) {
    if (residual == nullptr && call.epilogue.is_clamp()) {
      Accumulators clamped = sums;
      clamped.Clamp(call.epilogue.lower, call.epilogue.upper);
      if (StoreImageRows(call, clamped, output)) return;
    }
    // One vector more: the last pixels of a row are loaded as a whole vector.
    HWY_ALIGN float stored[(Accumulators::kVectors + 1) * kLanes];
    sums.Store(stored);
    FinishCompact(call, stored, residual, output);
    return;
  }
  output += call.span_begin;
  if (call.ahead != 0) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < Accumulators::kVectors; ++i) FetchToWrite(output + call.ahead + i * kLanes);
    if (residual != nullptr) {
      GOSSAMER_UNROLL
      for (size_t i = 0; i < Accumulators::kVectors; ++i) {
        hwy::Prefetch(residual + call.span_begin + call.ahead + i * kLanes);
      }
    }
  }
  if (residual != nullptr) sums.Add(residual + call.span_begin);
  sums.Clamp(call.epilogue.lower, call.epilogue.upper);
  sums.Store(output);
  if (HWY_UNLIKELY(!call.epilogue.is_clamp())) {
    ActivateRow(call.epilogue, output, static_cast<int64_t>(Accumulators::kLaneCount));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_FINISH_INL_H_
