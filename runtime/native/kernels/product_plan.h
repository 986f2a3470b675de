// A sparse product made ready for one processor and one image size: which pixels are computed together, where each
// nonzero finds its input, which thread takes which rows. Made once when a session is created, never written again.
#ifndef GOSSAMER_KERNELS_PRODUCT_PLAN_H_
#define GOSSAMER_KERNELS_PRODUCT_PLAN_H_

#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"
#include "kernels/convolution_shape.h"
#include "kernels/large_pages.h"
#include "kernels/machine.h"
#include "kernels/panel.h"
#include "kernels/share.h"

namespace gossamer {

// What products of floats are computed in.
enum class Arithmetic {
  kFloat,
  kHalf,         // fp16, half_row-inl.h: needs HasHalfProducts()
  kRoundedHalf,  // what kHalf computes, by any processor: slow, for checks
};

struct PlanOptions {
  KernelTraits traits;       // of the kernels that will run the plan: CurrentKernelTraits()
  int64_t threads = 1;       // that tiles or output channels are dealt to (Dealing)
  int64_t block_bytes = 0;   // of staged input that a kernel call works on; 0: from the cache and the density
  bool column_shift = true;  // whether the in-register column shift may be used
  int64_t row_quantum = 1;   // output channels that no slice may cut apart
  Arithmetic arithmetic = Arithmetic::kFloat;
  int64_t finished_rows = 0;  // that are finished together at most (BlockStream); 0: all of a slice
  bool pixel_planes = false;  // the shape is a PixelShape
  bool joins_last_bytes = false;  // JoinsLastBytes() of its pixels
};

// One copy of a piece of an image row into the staged block, done for every channel of the block.
struct StageCopy {
  int64_t source;      // floats from the image's first channel; -1: there is no source, write zeros
  int32_t target;      // floats from the staged channel
  int32_t zeros_left;  // written before
  int32_t count;       // pixels copied
  int32_t zeros_right; // written after
};

// The same for processors that load and store 16 lanes under a mask: a vector of the staged channel, of which some lanes are
// pixels that lie `stride` apart in one row, and the others padding, or pixels that another vector has put there.
struct StageVector {
  int64_t source;  // floats from the image's first channel to the pixel of lane 0, were there one
  int32_t target;  // floats from the staged channel, a multiple of 16
  uint16_t lanes;  // a bit for each that is a pixel
  bool pads;       // writes the padding too
};

// A staged row of a tile that is a segment of its image row: one pixel, `count` pixels, one pixel. Sources are floats from
// the image's first channel; -1: outside the image, zeros.
struct StageRow {
  int64_t left;
  int64_t source;
  int64_t right;
  int32_t target;  // floats from the staged channel, a multiple of 16
  int32_t count;
};

// Consecutive accumulator lanes that one kernel call computes.
struct LaneSpan {
  int32_t begin;
  int32_t lanes;
};

struct TilePlan {
  int32_t rows;
  int32_t columns;
  int32_t window;  // which streams it is computed with (tap_windows.h)
  bool compact;  // rows of `row_lanes` accumulators are stored as rows of `columns` pixels
  std::vector<StageCopy> copies;
  std::vector<StageVector> vectors;  // instead of copies
  std::vector<StageRow> wide_rows;  // instead of copies
  std::vector<LaneSpan> spans;
};

// Input channels that are worked on together, for the output channels that read them.
struct ChannelBlock {
  int64_t first_channel;
  int64_t channels;
  bool first;  // the sums start with the bias
  bool last;   // the sums are finished and stored
};

// Where in a slice the nonzeros of one channel block stand, for some of its rows.
struct BlockStream {
  size_t entry;
  size_t count;
  size_t row;
  int32_t groups;   // of rows_per_group rows each, after
  int32_t singles;  // rows by themselves
  // The rows whose sums are then finished: none but in the last block, where streams are those of consecutive rows.
  Range finished;
};

// Nonzeros of each of `rows` rows of a group that stand together in one step of the stream.
constexpr int64_t StepNonzeros(int64_t rows) { return rows == 4 ? 1 : 2; }

// The rows (output channels) that one thread computes, or all of them where tiles are dealt out whole. `entries` is what
// the kernels read from beginning to end. A step of it is [n x weight][n x uint16 offset in lanes], with the
// nonzeros of the group's rows in turn:
//   group of 4 rows  one nonzero of each a step
//   group of 1, 2    two of each a step; if their number is odd, the first step has one
//   sums_quads       of four neighbouring rows two pairs, one after the other. Of a pair first the places that both have, two
//                    a step: [4 x weight][2 x offset]; then two nonzeros of each a step, as in a group of 2
//   column shift     a row's nonzeros by the shift, each in pairs; two pairs a step, if odd one in the first
struct RowSlice {
  StoredBytes entries;
  std::vector<uint32_t> counts;  // steps or nonzeros: see row_kernel.h
  std::vector<int32_t> rows;
  std::vector<BlockStream> streams;
  std::vector<size_t> first_stream;  // of each block, and the end
};

// Lanes to keep, in both forms that processors use: a word a lane, and a bit a lane (AVX-512, 16 lanes a register).
struct ColumnMask {
  std::vector<uint32_t> words;
  std::vector<uint16_t> bits;
};

// Everything but what the sums begin with and become. Channels and floats are those of the panels: of quantised ones
// (quantised_panel.h) a lane of 32 bits holds four input channels.
struct ProductPlan {
  ConvolutionShape shape;
  PanelLayout input;
  PanelLayout output;
  KernelTraits traits;

  bool direct = false;        // the input panel is read as it lies: 1x1, or all but the middle tap reads padding
  bool pixel_planes = false;  // tiles are staged as pixel_planes.h says
  bool joins_last_bytes = false;
  bool column_shift = false;  // kernel columns are told apart by shifts in registers, not by shifted copies
  bool wide_rows = false;     // and so that rows may be cut into segments (wide_row-inl.h)
  int64_t row_lanes = 0;      // lanes from one image row to the next among the accumulators
  int64_t rows_per_group = 1;
  bool sums_quads = false;  // groups are of four neighbouring rows: KernelTraits::sums_quads, where columns are not shifted
  int64_t channel_floats = 0;  // of one staged channel
  int64_t accumulator_pitch = 0;
  int64_t stage_floats = 0;        // scratch of one thread
  int64_t accumulator_floats = 0;  // scratch of one thread
  std::vector<ChannelBlock> blocks;
  int64_t tile_slices = 1;       // of each tile; more than one where output.dealing is not kTiles
  std::vector<RowSlice> slices;  // tile_slices for every window of taps
  std::vector<TilePlan> tiles;
  // What a shift to the right (left) keeps: all lanes but those of the first (last) column.
  ColumnMask keep_after_right;
  ColumnMask keep_after_left;

  size_t nonzeros = 0;
  size_t entries = 0;  // nonzeros and padding

  int64_t items(int64_t images) const {
    return images * static_cast<int64_t>(tiles.size()) * tile_slices;
  }
  // Consecutive items that one thread does best at once: the slices of a tile, which is then staged once.
  int64_t together() const { return output.dealing == Dealing::kChannels ? 1 : tile_slices; }
  const RowSlice& slice(const TilePlan& tile, size_t number) const {
    return slices[static_cast<size_t>(tile.window * tile_slices) + number];
  }
  int64_t scratch_floats() const { return stage_floats + accumulator_floats; }
};

struct Staging;

// Plans the product of a weight whose values are floats, halves or quads of bytes (quantised_weight.h). `staging` is
// how its tiles are staged, but for the copies, which the plan has taken. Needs CheckConvolution and CheckImage to have
// passed, and a convolution that does not go along one column.
template <class Value>
Status MakeProductPlan(const ConvolutionShape& shape, const SparseMatrix<Value>& weight, int64_t height, int64_t width,
                       const PlanOptions& options, ProductPlan* plan, Staging* staging);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_PRODUCT_PLAN_H_
