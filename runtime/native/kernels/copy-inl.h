// Copies of pixel runs: the staging of channel blocks, and parts of vectors at the ends of rows.
#if defined(GOSSAMER_KERNELS_COPY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_COPY_INL_H_
#undef GOSSAMER_KERNELS_COPY_INL_H_
#else
#define GOSSAMER_KERNELS_COPY_INL_H_
#endif

#include <cstring>
#include <type_traits>

#include "format/half.h"
#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/product_plan.h"

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

// The functions below write whole vectors, so up to kLanes - 1 lanes too many. Staging writes a block from its
// beginning to its end, and what was too much is overwritten by what belongs there, or lies in the slack at the end.

// Panels of floats are staged as what is multiplied, floats or halves; others as they are.
template <class D>
HWY_INLINE void StoreStaged(hn::Vec<D> v, D d, hn::TFromD<D>* to) {
  hn::StoreU(v, d, to);
}
template <class D>
HWY_INLINE void StoreStaged(hn::Vec<D> v, D d, Half* to) {
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
  // Without the processor's own conversion, Highway's loses NaN and infinities.
  HWY_ALIGN float floats[hn::MaxLanes(D())];
  hn::Store(v, d, floats);
  for (size_t i = 0; i < hn::MaxLanes(d); ++i) to[i] = {HalfFromFloat(floats[i])};
#else
  (void)d;
  const hn::Rebind<hwy::float16_t, D> halves;
  hn::StoreU(hn::DemoteTo(halves, v), halves, reinterpret_cast<hwy::float16_t*>(to));
#endif
}
template <class Lane>
HWY_INLINE void StoreStaged(Lane value, Lane* to) {
  *to = value;
}
HWY_INLINE void StoreStaged(float value, Half* to) { *to = {HalfFromFloat(value)}; }

template <class Lane, class Staged>
HWY_INLINE void FillLanes(Staged* HWY_RESTRICT to, int64_t count, Lane value) {
  const hn::CappedTag<Lane, 16> d;
  const auto all = hn::Set(d, value);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(kLanes)) StoreStaged(all, d, to + i);
}

// `v`, whose last lanes beyond `count` are zeros, with padding there. Of floats the padding is zeros anyway.
template <class D, class Vector>
HWY_INLINE Vector PadBehind(D d, Vector v, size_t count, hn::TFromD<D> padding) {
  if constexpr (hwy::IsFloat<hn::TFromD<D>>()) {
    return v;
  } else {
    return hn::IfThenElse(hn::FirstN(d, count), v, hn::Set(d, padding));
  }
}

// to[i] = from[kStride * i], then padding. Reads nothing but the pixels that it copies and those between them.
template <int64_t kStride>
struct PixelCopy {
  template <class Lane, class Staged>
  HWY_INLINE static void Copy(const Lane* HWY_RESTRICT from, int64_t, Staged* HWY_RESTRICT to, int64_t count,
                              int64_t padded, Lane padding) {
    const hn::CappedTag<Lane, 16> d;
    const int64_t lanes = static_cast<int64_t>(kLanes);
    int64_t i = 0;
    // On NEON 17 instructions for 16 floats that become halves, instead of 28.
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
      GOSSAMER_UNROLL
      for (int64_t k = 0; k < 4; ++k) StoreStaged(hn::LoadU(d, from + i + k * lanes), d, to + i + k * lanes);
    }
    for (; i + lanes <= count; i += lanes) StoreStaged(hn::LoadU(d, from + i), d, to + i);
    if (i < count) {
      const size_t rest = static_cast<size_t>(count - i);
      StoreStaged(PadBehind(d, hn::LoadN(d, from + i, rest), rest, padding), d, to + i);
      i += lanes;
    }
    if (i < count + padded) FillLanes(to + i, count + padded - i, padding);
  }
};

// Any stride.
template <>
struct PixelCopy<0> {
  template <class Lane, class Staged>
  HWY_INLINE static void Copy(const Lane* HWY_RESTRICT from, int64_t stride, Staged* HWY_RESTRICT to, int64_t count,
                              int64_t padded, Lane padding) {
    for (int64_t i = 0; i < count; ++i) StoreStaged(from[i * stride], to + i);
    if (padded != 0) FillLanes(to + count, padded, padding);
  }
};

#if HWY_TARGET != HWY_SCALAR
template <>
struct PixelCopy<2> {
  template <class Lane, class Staged>
  HWY_INLINE static void Copy(const Lane* HWY_RESTRICT from, int64_t, Staged* HWY_RESTRICT to, int64_t count,
                              int64_t padded, Lane padding) {
    const hn::CappedTag<Lane, 16> d;
    const int64_t lanes = static_cast<int64_t>(kLanes);
    int64_t i = 0;
    // The last vector may have no pixel between its last one and the end of memory.
    for (; i + lanes < count; i += lanes) {
      const auto low = hn::LoadU(d, from + 2 * i);
      StoreStaged(hn::ConcatEven(d, hn::LoadU(d, from + 2 * i + lanes), low), d, to + i);
    }
    if (i < count) {
      const size_t read = static_cast<size_t>(2 * (count - i) - 1);
      const auto low = hn::LoadN(d, from + 2 * i, HWY_MIN(read, kLanes));
      const auto high = read > kLanes ? hn::LoadN(d, from + 2 * i + lanes, read - kLanes) : hn::Zero(d);
      StoreStaged(PadBehind(d, hn::ConcatEven(d, high, low), static_cast<size_t>(count - i), padding), d, to + i);
      i += lanes;
    }
    if (i < count + padded) FillLanes(to + i, count + padded - i, padding);
  }
};
#endif

template <int64_t kStride, class Lane, class Staged>
HWY_NOINLINE void StageChannels(const TilePlan& tile, const Lane* HWY_RESTRICT image, int64_t image_pitch,
                                int64_t stride, int64_t channels, int64_t channel_lanes, Lane padding,
                                Staged* HWY_RESTRICT staged) {
  const StageCopy* const end = tile.copies.data() + tile.copies.size();
  for (int64_t channel = 0; channel < channels; ++channel, image += image_pitch, staged += channel_lanes) {
    for (const StageCopy* copy = tile.copies.data(); copy != end; ++copy) {
      Staged* to = staged + copy->target;
      if (copy->zeros_left != 0) FillLanes(to, copy->zeros_left, padding);
      if (copy->source < 0) continue;
      PixelCopy<kStride>::Copy(image + copy->source, stride, to + copy->zeros_left, copy->count, copy->zeros_right,
                               padding);
    }
  }
}

#if HWY_TARGET == HWY_AVX3
// Vector by vector, each for all channels. With a stride of 2 reads one pixel more than it copies.
template <int64_t kStride, class Lane>
HWY_NOINLINE void StageVectors(const TilePlan& tile, const Lane* HWY_RESTRICT image, int64_t image_pitch,
                               int64_t channels, int64_t channel_lanes, Lane padding, Lane* HWY_RESTRICT staged) {
  int32_t bits;
  std::memcpy(&bits, &padding, sizeof(bits));
  const __m512i pad = _mm512_set1_epi32(bits);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  for (const StageVector& vector : tile.vectors) {
    const Lane* from = image + vector.source;
    Lane* to = staged + vector.target;
    if (vector.lanes == 0xFFFF) {
      for (int64_t channel = 0; channel < channels; ++channel, from += image_pitch, to += channel_lanes) {
        const __m512i pixels = _mm512_loadu_si512(from);
        if constexpr (kStride == 1) {
          _mm512_storeu_si512(to, pixels);
        } else {
          _mm512_storeu_si512(to, _mm512_permutex2var_epi32(pixels, even, _mm512_loadu_si512(from + 16)));
        }
      }
      continue;
    }
    const __mmask16 lanes = vector.lanes;
    const __mmask16 written = vector.pads ? __mmask16{0xFFFF} : lanes;
    const __mmask16 low = static_cast<__mmask16>(_pdep_u32(lanes, 0x5555));
    const __mmask16 high = static_cast<__mmask16>(_pdep_u32(lanes >> 8, 0x5555));
    for (int64_t channel = 0; channel < channels; ++channel, from += image_pitch, to += channel_lanes) {
      __m512i pixels;
      if constexpr (kStride == 1) {
        pixels = _mm512_mask_loadu_epi32(pad, lanes, from);
      } else {
        pixels = _mm512_permutex2var_epi32(_mm512_maskz_loadu_epi32(low, from), even,
                                           _mm512_maskz_loadu_epi32(high, from + 16));
        pixels = _mm512_mask_mov_epi32(pad, lanes, pixels);
      }
      _mm512_mask_storeu_epi32(to, written, pixels);
    }
  }
}
#endif

// Stages the channels of a block. `image` is the image's first channel of the block.
template <class Lane, class Staged>
HWY_INLINE void StageBlock(const TilePlan& tile, const Lane* image, int64_t image_pitch, int64_t stride,
                           int64_t channels, int64_t channel_lanes, Lane padding, Staged* staged) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<Staged, Lane>) {
    if (!tile.vectors.empty()) {
      if (stride == 1) {
        StageVectors<1>(tile, image, image_pitch, channels, channel_lanes, padding, staged);
      } else {
        StageVectors<2>(tile, image, image_pitch, channels, channel_lanes, padding, staged);
      }
      return;
    }
  }
#endif
  if (stride == 1) {
    StageChannels<1>(tile, image, image_pitch, stride, channels, channel_lanes, padding, staged);
#if HWY_TARGET != HWY_SCALAR
  } else if (stride == 2) {
    StageChannels<2>(tile, image, image_pitch, stride, channels, channel_lanes, padding, staged);
#endif
  } else {
    StageChannels<0>(tile, image, image_pitch, stride, channels, channel_lanes, padding, staged);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_COPY_INL_H_
