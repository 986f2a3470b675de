// The interface of the innermost kernels: one channel block, one span of pixels, a list of output rows.
#ifndef GOSSAMER_KERNELS_ROW_KERNEL_H_
#define GOSSAMER_KERNELS_ROW_KERNEL_H_

#include <cstdint>

#include "kernels/epilogue.h"
#include "kernels/product_plan.h"

namespace gossamer {

// What is the same whatever the sums are made of. Lane is a float, or 32 bits of an integer sum.
template <class Lane>
struct ProductCall {
  // The stream (see RowSlice).
  const uint8_t* entries;
  // Entries of each group; pairs for each of three column shifts in the shifting kernel; of both pairs of a quad of rows, steps
  // that they share and others.
  const uint32_t* counts;
  const int32_t* rows;
  int64_t groups;

  const Lane* input;  // first lane of the first channel of the block; entries' offsets count from here
  const Lane* bias;
  Lane* accumulators;  // of row 0, first lane of the span; unused when first and last
  int64_t accumulator_pitch;
  bool first;
  bool last;

  int64_t span_begin;  // first lane of the span within the tile
  int64_t span_lanes;
  bool compact;        // lanes come in rows of row_lanes, of which the first row_pixels are kept
  int64_t row_lanes;
  int64_t row_pixels;
  int64_t image_rows;

  const ColumnMask* keep_after_right;
  const ColumnMask* keep_after_left;
};

struct RowCall : ProductCall<float> {
  // How the finished sums are stored.
  float* output;          // of row 0, first pixel of the tile
  const float* residual;  // likewise, or null
  int64_t output_pitch;
  int64_t ahead;          // from the tile's output and residual to the next one's, to fetch those; 0: do not
  Epilogue epilogue;
};

// Returns where the entries of the call end.
template <class Call>
using RowKernel = const uint8_t* (*)(const Call& call);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_ROW_KERNEL_H_
