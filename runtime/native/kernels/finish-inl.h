// Stores finished sums: + residual, activation, and out of the accumulators' rows into the panel's.
#if defined(GOSSAMER_KERNELS_FINISH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_FINISH_INL_H_
#undef GOSSAMER_KERNELS_FINISH_INL_H_
#else
#define GOSSAMER_KERNELS_FINISH_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/activation-inl.h"
#include "kernels/copy-inl.h"
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
    return hn::Min(hn::Max(hn::Add(sum, other), low), high);
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

// The pixels of the span's lanes, which come in rows of call.row_lanes with leftovers at the end of each.
inline HWY_NOINLINE void FinishCompact(const RowCall& call, const float* HWY_RESTRICT sums, const float* residual,
                                       float* output) {
  const int64_t begin = call.span_begin;
  const int64_t end = begin + call.span_lanes;
  for (int64_t y = begin / call.row_lanes; y < call.image_rows; ++y) {
    const int64_t first = HWY_MAX(y * call.row_lanes, begin);
    const int64_t last = HWY_MIN(y * call.row_lanes + call.row_pixels, end);
    if (first >= end) break;
    if (first >= last) continue;
    const int64_t pixel = y * call.row_pixels + first - y * call.row_lanes;
    FinishPixels(call.epilogue, sums + first - begin, residual ? residual + pixel : nullptr, output + pixel,
                 last - first);
    if (!call.epilogue.is_clamp()) ActivateRow(call.epilogue.activation, output + pixel, last - first);
  }
}

template <class Accumulators>
HWY_INLINE void FinishRow(const RowCall& call, int64_t row, Accumulators& sums) {
  float* output = call.output + row * call.output_pitch;
  const float* residual = call.residual ? call.residual + row * call.output_pitch : nullptr;
  if (HWY_UNLIKELY(call.compact)) {
    HWY_ALIGN float stored[Accumulators::kVectors * kLanes];
    sums.Store(stored);
    FinishCompact(call, stored, residual, output);
    return;
  }
  output += call.span_begin;
  if (residual != nullptr) sums.Add(residual + call.span_begin);
  sums.Clamp(call.epilogue.lower, call.epilogue.upper);
  sums.Store(output);
  if (HWY_UNLIKELY(!call.epilogue.is_clamp())) {
    ActivateRow(call.epilogue.activation, output, static_cast<int64_t>(Accumulators::kLaneCount));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_FINISH_INL_H_
