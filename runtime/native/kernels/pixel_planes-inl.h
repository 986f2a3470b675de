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

// The last byte of a kernel row: that of the last channel of its last pixel.
HWY_INLINE void StageLastBytes(const PixelRow& row, int64_t pixel, int64_t lanes, int32_t* HWY_RESTRICT staged) {
  const int32_t* const from = row.At(pixel);
  const __m512i byte = _mm512_set1_epi32(0xFF);
  for (int64_t i = 0; i < lanes; i += 16) {
    const __m512i pixels = _mm512_srli_epi32(_mm512_loadu_si512(from + i), 8 * (kColours - 1));
    _mm512_storeu_si512(staged + i, _mm512_and_si512(pixels, byte));
  }
}

// One row of the image: its planes, all but a joined one.
inline void StageRowOfPixels(const PixelRow& row, int64_t planes, int64_t lanes, int32_t* HWY_RESTRICT staged) {
  for (int64_t plane = 0; plane < planes; ++plane, staged += lanes) {
    if (plane % kColours == 0) {
      StagePlane<0>(row, plane, lanes, staged);
    } else if (plane % kColours == 1) {
      StagePlane<1>(row, plane, lanes, staged);
    } else {
      StagePlane<2>(row, plane, lanes, staged);
    }
  }
}

// The lanes that kernel rows share, each in the last plane of a row of `staged`. `bytes` has the last bytes of all rows.
inline void JoinLastBytes(int64_t rows, int64_t planes, int64_t lanes, const int32_t* HWY_RESTRICT bytes,
                          int32_t* HWY_RESTRICT staged) {
  for (int64_t first = 0; first < rows; first += kQuad, staged += planes * lanes) {
    int32_t* const joined = staged + (planes - 1) * lanes;
    for (int64_t i = 0; i < lanes; i += 16) {
      __m512i sum = _mm512_setzero_si512();
      for (int64_t row = first; row < HWY_MIN(rows, first + kQuad); ++row) {
        const __m512i byte = _mm512_loadu_si512(bytes + row * lanes + i);
        sum = _mm512_or_si512(sum, _mm512_sllv_epi32(byte, _mm512_set1_epi32(static_cast<int32_t>(8 * (row - first)))));
      }
      _mm512_storeu_si512(joined + i, sum);
    }
  }
}

// Rows [first, kernel_height) of the kernel, for the tile that is one row of outputs.
inline void StagePixelRows(const ProductPlan& plan, const Tile& tile, const int32_t* image, int32_t padding, int64_t first,
                           int32_t* HWY_RESTRICT staged, int32_t* HWY_RESTRICT bytes) {
  const ConvolutionShape& shape = plan.shape;
  const int64_t planes = shape.kernel_width, lanes = plan.row_lanes, own = planes - plan.joins_last_bytes;
  for (int64_t kh = first; kh < shape.kernel_height; ++kh) {
    int32_t* const to = staged + kh * planes * lanes;
    int32_t* const last = bytes + kh * lanes;
    const int64_t row = tile.row * shape.stride_height - shape.pad_top + kh * shape.dilation_height;
    if (row < 0 || row >= plan.input.height) {
      std::fill_n(to, own * lanes, padding);
      if (plan.joins_last_bytes) std::fill_n(last, lanes, padding & 0xFF);
      continue;
    }
    const PixelRow pixels(plan.input, image, row, tile.column * shape.stride_width - shape.pad_left, padding);
    StageRowOfPixels(pixels, own, lanes, to);
    if (plan.joins_last_bytes) StageLastBytes(pixels, FirstPixel(own), lanes, last);
  }
}

// All rows of the kernel, for the tile that is one row of outputs: those that neither it, for other output channels, nor the tile
// above it has left.
inline const int32_t* StagePixels(const ProductPlan& plan, int64_t index, const int32_t* image, int32_t padding,
                                  int32_t* HWY_RESTRICT staged, StagedPixels* there) {
  const ConvolutionShape& shape = plan.shape;
  const int64_t planes = shape.kernel_width, lanes = plan.row_lanes, rows = shape.kernel_height;
  const int64_t most = StagedPixelRows(rows, shape.stride_height);
  const bool same = image == there->image && index == there->tile;
  const bool below = image == there->image && index == there->tile + 1 && plan.output.segments == 1 &&
                     shape.dilation_height == 1 && there->row + shape.stride_height + rows <= most;
  if (!same) *there = {image, index, below ? there->row + shape.stride_height : 0};
  int32_t* const from = staged + there->row * planes * lanes;
  if (same) return from;
  int32_t* const bytes = staged + (most * planes + there->row) * lanes;
  StagePixelRows(plan, plan.output.tile(index), image, padding, below ? rows - shape.stride_height : 0, from, bytes);
  if (plan.joins_last_bytes) JoinLastBytes(rows, planes, lanes, bytes, from);
  return from;
}
#else
inline const int32_t* StagePixels(const ProductPlan&, int64_t, const int32_t*, int32_t, int32_t* staged, StagedPixels*) {
  return staged;
}
#endif

// Of floats there are none.
inline const float* StagePixels(const ProductPlan&, int64_t, const float*, float, float* staged, StagedPixels*) {
  return staged;
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_PIXEL_PLANES_INL_H_
