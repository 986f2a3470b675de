// Stages the rows of an image as planes of four neighbouring bytes (pixel_planes.h).
#if defined(GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_
#undef GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_
#else
#define GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/pixel_planes.h"
#include "kernels/product_plan.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
// The pixels of an image row that a tile reads, those in even and in odd columns from the first one, and what of them
// vectors read too much.
struct PixelRow {
  static constexpr int64_t kMost = kTilePixels + 32;
  HWY_ALIGN int32_t of_parity[2][kMost];

  // Pixels [first, first + 2 * kMost) of a row; those outside are padding.
  HWY_INLINE PixelRow(const PanelLayout& layout, const int32_t* image, int64_t row, int64_t first, int32_t padding) {
    HWY_ALIGN int32_t pixels[2 * kMost];
    const int64_t end = HWY_MIN(layout.width, first + 2 * kMost);
    const int64_t begin = HWY_MIN(HWY_MAX(first, int64_t{0}), HWY_MAX(end, first));
    std::fill(pixels, pixels + (begin - first), padding);
    std::fill(pixels + HWY_MAX(end - first, int64_t{0}), pixels + 2 * kMost, padding);
    for (int64_t column = begin; column < end;) {
      const int64_t next = HWY_MIN(end, (column / layout.tile_columns + 1) * layout.tile_columns);
      const int32_t* const from =
          image + layout.tile_of(row, column) * layout.pitch + layout.offset_in_tile(row, column);
      std::memcpy(pixels + column - first, from, static_cast<size_t>(next - column) * sizeof(int32_t));
      column = next;
    }
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t i = 0; i < kMost; i += 16) {
      const __m512i low = _mm512_load_si512(pixels + 2 * i), high = _mm512_load_si512(pixels + 2 * i + 16);
      _mm512_store_si512(of_parity[0] + i, _mm512_permutex2var_epi32(low, even, high));
      _mm512_store_si512(of_parity[1] + i, _mm512_permutex2var_epi32(low, odd, high));
    }
  }

  // Pixel `pixel` of the kernel's row for each output from the first one.
  HWY_INLINE const int32_t* At(int64_t pixel) const { return of_parity[pixel % 2] + pixel / 2; }
};

// `lanes` lanes, whole vectors, of a plane whose first byte is of channel kColour: of one pixel all from that one on, and then
// of the next.
template <int kColour>
HWY_INLINE void StagePlane(const PixelRow& row, int64_t plane, int64_t lanes, int32_t* HWY_RESTRICT staged) {
  const int32_t* const here = row.At(FirstPixel(plane));
  const int32_t* const next = row.At(FirstPixel(plane) + 1);
  const __m512i own = _mm512_set1_epi32(0x00FFFFFF >> (8 * kColour));
  for (int64_t i = 0; i < lanes; i += 16) {
    const __m512i first = _mm512_and_si512(_mm512_srli_epi32(_mm512_loadu_si512(here + i), 8 * kColour), own);
    const __m512i then = _mm512_slli_epi32(_mm512_loadu_si512(next + i), 24 - 8 * kColour);
    _mm512_storeu_si512(staged + i, _mm512_or_si512(first, then));
  }
}

// All rows of the kernel, for the tile that is one row of outputs.
inline void StagePixels(const ProductPlan& plan, int64_t index, const int32_t* image, int32_t padding,
                        int32_t* HWY_RESTRICT staged) {
  const ConvolutionShape& shape = plan.shape;
  const Tile tile = plan.output.tile(index);
  const int64_t planes = shape.kernel_width, lanes = plan.row_lanes;
  for (int64_t kh = 0; kh < shape.kernel_height; ++kh, staged += planes * lanes) {
    const int64_t row = tile.row * shape.stride_height - shape.pad_top + kh * shape.dilation_height;
    if (row < 0 || row >= plan.input.height) {
      std::fill_n(staged, planes * lanes, padding);
      continue;
    }
    const PixelRow pixels(plan.input, image, row, tile.column * shape.stride_width - shape.pad_left, padding);
    for (int64_t plane = 0; plane < planes; ++plane) {
      int32_t* const to = staged + plane * lanes;
      if (plane % kColours == 0) {
        StagePlane<0>(pixels, plane, lanes, to);
      } else if (plane % kColours == 1) {
        StagePlane<1>(pixels, plane, lanes, to);
      } else {
        StagePlane<2>(pixels, plane, lanes, to);
      }
    }
  }
}
#else
inline void StagePixels(const ProductPlan&, int64_t, const int32_t*, int32_t, int32_t*) {}
#endif

// Of floats there are none.
inline void StagePixels(const ProductPlan&, int64_t, const float*, float, float*) {}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_
