// Where a kernel's taps find their pixels in a staged block: the geometry of strides, padding and dilation.
//
// A kernel call multiplies whole accumulator rows with single weights, so for every tap (kernel row and column) the
// pixels of a tile must lie in one contiguous, aligned run. Staging copies each channel into
//   - one plane for each pair of (column residue modulo the stride, column shift) that the kernel's columns need, or, with
//     the column shift in registers, one for each residue only;
//   - in it one band for each row residue; a kernel row is then an offset of whole rows within its band. Where such an
//     offset is not aligned (28 pixels are 112 bytes) odd and even offsets get a band of their own; and so do kernel rows
//     that are farther apart, by dilation, than a tile is high.
// What no tap reads but as padding is not staged (axis_taps.h, tap_windows.h).
#ifndef GOSSAMER_KERNELS_STAGING_H_
#define GOSSAMER_KERNELS_STAGING_H_

#include <cstdint>
#include <vector>

#include "format/status.h"
#include "kernels/product_plan.h"
#include "kernels/tap_windows.h"

namespace gossamer {

struct StagedTap {
  int64_t offset = 0;    // floats from the staged channel
  int column_shift = 0;  // pixels that remain to be shifted in registers: -1, 0 or 1
};

struct Staging {
  bool column_shift = false;
  // Rows are staged from one pixel to the left of a tile to one to its right, and column_shift has the opposite sign,
  // because the kernel of wide rows takes the right column first (wide_row-inl.h).
  bool wide_rows = false;
  int64_t row_lanes = 0;
  int64_t channel_floats = 0;
  std::vector<StagedTap> taps;              // kernel_height x kernel_width; of those in no window it says nothing
  std::vector<std::vector<bool>> windows;   // whether a tap is needed, of all taps
  std::vector<int32_t> window_of_tile;
  std::vector<std::vector<StageCopy>> copies;  // of each tile
  std::vector<std::vector<StageRow>> rows;     // likewise; with wide rows of stride 1 instead of copies
};

// Image rows that one call of the shifting kernel computes; 0: it cannot. Calls other than the last one of a tile must
// end with a whole vector, because a kernel stores whole vectors.
int64_t ShiftedRows(int64_t rows, int64_t row_lanes, const KernelTraits& traits);

// With `aligned_rows` no vector that a kernel loads crosses two cache lines because of its kernel row. Refuses staged channels of
// more than `most_floats` and more copies than limits.h allows, before it makes any.
Status MakeStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                   const KernelTraits& traits, bool may_shift, bool aligned_rows, int64_t most_floats, Staging* staging);

// `copies` of one channel as vectors. Needs a stride of 1 or 2.
std::vector<StageVector> VectorsOf(const std::vector<StageCopy>& copies, int64_t channel_floats, int64_t stride);

// The staging of a single channel with a halo: one plane for each column residue, whose rows hold every pixel that any of
// the kernel's columns looks at. Taps are then not aligned, but nothing is copied twice.
struct HaloTap {
  int64_t tap;     // kernel row x kernel_width + kernel column
  int64_t offset;  // floats from the staged channel
};

struct HaloStaging {
  int64_t row_floats = 0;  // from one staged row to the next, in all planes
  int64_t channel_floats = 0;
  std::vector<HaloTap> taps;                   // those that read more than padding
  std::vector<Range> of_tile;                  // which of them a tile needs
  std::vector<std::vector<StageCopy>> copies;  // of each tile
};

// Refuses staged channels of more than `most_floats` and more copies than limits.h allows, before it makes any. With
// `all_taps`, padding is staged too for tiles that need not all taps: they may then be computed with all.
Status MakeHaloStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                       int64_t most_floats, bool all_taps, HaloStaging* staging);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_STAGING_H_
