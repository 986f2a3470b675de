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

// Calls full(i) for each whole vector at i of [0, count), then part(i, rest) for what remains, if anything.
template <class Full, class Part>
HWY_INLINE void ForEachVector(int64_t count, const Full& full, const Part& part) {
  const int64_t lanes = static_cast<int64_t>(kLanes);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) full(i);
  if (i < count) part(i, static_cast<size_t>(count - i));
}

// The functions below write whole vectors, so up to kLanes - 1 floats too many. Staging writes a block from its
// beginning to its end, and what was too much is overwritten by what belongs there, or lies in the slack at the end.

HWY_INLINE void FillZeros(float* HWY_RESTRICT to, int64_t count) {
  const FloatTag d;
  const FloatVector zero = hn::Zero(d);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(kLanes)) hn::StoreU(zero, d, to + i);
}

// to[i] = from[kStride * i], then zeros. Reads nothing but the pixels that it copies and those between them.
template <int64_t kStride>
struct PixelCopy {
  HWY_INLINE static void Copy(const float* HWY_RESTRICT from, int64_t, float* HWY_RESTRICT to, int64_t count,
                              int64_t zeros) {
    const FloatTag d;
    const int64_t lanes = static_cast<int64_t>(kLanes);
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    if (i < count) {
      hn::StoreU(hn::LoadN(d, from + i, static_cast<size_t>(count - i)), d, to + i);
      i += lanes;
    }
    if (i < count + zeros) FillZeros(to + i, count + zeros - i);
  }
};

// Any stride.
template <>
struct PixelCopy<0> {
  HWY_INLINE static void Copy(const float* HWY_RESTRICT from, int64_t stride, float* HWY_RESTRICT to, int64_t count,
                              int64_t zeros) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
    if (zeros != 0) FillZeros(to + count, zeros);
  }
};

#if HWY_TARGET != HWY_SCALAR
template <>
struct PixelCopy<2> {
  HWY_INLINE static void Copy(const float* HWY_RESTRICT from, int64_t, float* HWY_RESTRICT to, int64_t count,
                              int64_t zeros) {
    const FloatTag d;
    const int64_t lanes = static_cast<int64_t>(kLanes);
    int64_t i = 0;
    // The last vector may have no pixel between its last one and the end of memory.
    for (; i + lanes < count; i += lanes) {
      const FloatVector low = hn::LoadU(d, from + 2 * i);
      hn::StoreU(hn::ConcatEven(d, hn::LoadU(d, from + 2 * i + lanes), low), d, to + i);
    }
    if (i < count) {
      const size_t read = static_cast<size_t>(2 * (count - i) - 1);
      const FloatVector low = hn::LoadN(d, from + 2 * i, HWY_MIN(read, kLanes));
      const FloatVector high = read > kLanes ? hn::LoadN(d, from + 2 * i + lanes, read - kLanes) : hn::Zero(d);
      hn::StoreU(hn::ConcatEven(d, high, low), d, to + i);
      i += lanes;
    }
    if (i < count + zeros) FillZeros(to + i, count + zeros - i);
  }
};
#endif

template <int64_t kStride>
HWY_NOINLINE void StageChannels(const TilePlan& tile, const float* HWY_RESTRICT image, int64_t image_pitch,
                                int64_t stride, int64_t channels, int64_t channel_floats,
                                float* HWY_RESTRICT staged) {
  const StageCopy* const end = tile.copies.data() + tile.copies.size();
  for (int64_t channel = 0; channel < channels; ++channel, image += image_pitch, staged += channel_floats) {
    for (const StageCopy* copy = tile.copies.data(); copy != end; ++copy) {
      float* to = staged + copy->target;
      if (copy->zeros_left != 0) FillZeros(to, copy->zeros_left);
      if (copy->source < 0) continue;
      PixelCopy<kStride>::Copy(image + copy->source, stride, to + copy->zeros_left, copy->count, copy->zeros_right);
    }
  }
}

// Stages the channels of a block. `image` is the image's first channel of the block.
HWY_INLINE void StageBlock(const TilePlan& tile, const float* image, int64_t image_pitch, int64_t stride,
                           int64_t channels, int64_t channel_floats, float* staged) {
  if (stride == 1) {
    StageChannels<1>(tile, image, image_pitch, stride, channels, channel_floats, staged);
#if HWY_TARGET != HWY_SCALAR
  } else if (stride == 2) {
    StageChannels<2>(tile, image, image_pitch, stride, channels, channel_floats, staged);
#endif
  } else {
    StageChannels<0>(tile, image, image_pitch, stride, channels, channel_floats, staged);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_COPY_INL_H_
