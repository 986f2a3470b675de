// Copies of pixel runs: the staging of channel blocks, and parts of vectors at the ends of rows.
#if defined(GOSSAMER_KERNELS_COPY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_COPY_INL_H_
#undef GOSSAMER_KERNELS_COPY_INL_H_
#else
#define GOSSAMER_KERNELS_COPY_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/convolution_plan.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls full(i) for each whole vector at i of [0, count), then part(i, rest) for what remains, if anything. AVX-512 and
// AVX2 load and store parts of vectors by masks; elsewhere LoadN and StoreN are fine for the short rests.
template <class Full, class Part>
HWY_INLINE void ForEachVector(int64_t count, const Full& full, const Part& part) {
  const int64_t lanes = static_cast<int64_t>(kLanes);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) full(i);
  if (i < count) part(i, static_cast<size_t>(count - i));
}

HWY_INLINE void FillZeros(float* HWY_RESTRICT to, int64_t count) {
  const FloatTag d;
  const FloatVector zero = hn::Zero(d);
  ForEachVector(
      count, [&](int64_t i) HWY_ATTR { hn::StoreU(zero, d, to + i); },
      [&](int64_t i, size_t rest) HWY_ATTR { hn::StoreN(zero, d, to + i, rest); });
}

HWY_INLINE void CopyPixels(const float* HWY_RESTRICT from, float* HWY_RESTRICT to, int64_t count) {
  const FloatTag d;
  ForEachVector(
      count, [&](int64_t i) HWY_ATTR { hn::StoreU(hn::LoadU(d, from + i), d, to + i); },
      [&](int64_t i, size_t rest) HWY_ATTR { hn::StoreN(hn::LoadN(d, from + i, rest), d, to + i, rest); });
}

HWY_INLINE void CopyStrided(const float* HWY_RESTRICT from, int64_t stride, float* HWY_RESTRICT to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
}

// to[i] = from[2 * i]; reads from[0 .. 2 * count - 1) only.
HWY_INLINE void CopyEveryOther(const float* HWY_RESTRICT from, float* HWY_RESTRICT to, int64_t count) {
#if HWY_TARGET == HWY_SCALAR
  CopyStrided(from, 2, to, count);
#else
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(kLanes);
  int64_t i = 0;
  for (; i + lanes < count; i += lanes) {
    const FloatVector low = hn::LoadU(d, from + 2 * i);
    const FloatVector high = hn::LoadU(d, from + 2 * i + lanes);
    hn::StoreU(hn::ConcatEven(d, high, low), d, to + i);
  }
  if (i >= count) return;
  const size_t rest = static_cast<size_t>(count - i);
  const size_t read = 2 * rest - 1;
  const FloatVector low = hn::LoadN(d, from + 2 * i, HWY_MIN(read, kLanes));
  const FloatVector high = read > kLanes ? hn::LoadN(d, from + 2 * i + lanes, read - kLanes) : hn::Zero(d);
  hn::StoreN(hn::ConcatEven(d, high, low), d, to + i, rest);
#endif
}

// Stages the channels of a block. `image` is the image's first channel of the block.
inline void StageBlock(const TilePlan& tile, const float* HWY_RESTRICT image, int64_t image_pitch, int64_t stride,
                       int64_t channels, int64_t channel_floats, float* HWY_RESTRICT staged) {
  for (int64_t channel = 0; channel < channels; ++channel, image += image_pitch, staged += channel_floats) {
    for (const StageCopy& copy : tile.copies) {
      float* to = staged + copy.target;
      if (copy.zeros_left != 0) FillZeros(to, copy.zeros_left);
      to += copy.zeros_left;
      if (copy.source >= 0) {
        if (stride == 1) {
          CopyPixels(image + copy.source, to, copy.count);
        } else if (stride == 2) {
          CopyEveryOther(image + copy.source, to, copy.count);
        } else {
          CopyStrided(image + copy.source, stride, to, copy.count);
        }
      }
      if (copy.zeros_right != 0) FillZeros(to + copy.count, copy.zeros_right);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_COPY_INL_H_
