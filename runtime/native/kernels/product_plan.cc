#include "kernels/product_plan.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "format/half.h"
#include "kernels/limits.h"
#include "kernels/pixel_planes.h"
#include "kernels/quantised_weight.h"
#include "kernels/staging.h"
#include "kernels/stream_packer.h"

namespace gossamer {
namespace {

// Offsets in the stream are 16 bits, in floats.
constexpr int64_t kMaximumBlockFloats = 65535;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }

// A block is larger than the first-level cache on purpose: a longer block has longer rows in its stream, and every row
// begins and ends with its accumulators. Measured optimum on 32 KiB: 44 to 48 KB at 20% density, 52 to 56 at 10%, 62
// at 5%, which is a quarter of the cache more for each halving of the density.
// Where kernels can sum quads of rows the optimum is lower: 3/4 of 48 KiB from a tenth on, 4/3 at 5%.
int64_t ChooseBlockBytes(double density, bool sums_quads) {
  if (sums_quads) {
    const double halvings = std::log2(0.1 / std::max(density, 1e-6));
    return static_cast<int64_t>(static_cast<double>(FirstLevelCacheBytes()) *
                                std::clamp(0.75 + 0.6 * halvings, 0.75, 1.5));
  }
  const double halvings = std::log2(0.2 / std::max(density, 1e-6));
  return static_cast<int64_t>(static_cast<double>(FirstLevelCacheBytes()) *
                              std::clamp(1.44 + 0.25 * halvings, 0.9, 2.0));
}

// Whether the input panel can be read as it lies: what is read of the image is read by one tap, and each pixel by the
// output in its place. Next to it there may be taps that read padding only.
bool IsDirect(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  if (shape.stride_height != 1 || shape.stride_width != 1) return false;
  if (input.height != output.height || input.width != output.width) return false;
  const std::vector<AxisTap> rows = LiveTaps(RowAxis(shape, input, output));
  const std::vector<AxisTap> columns = LiveTaps(ColumnAxis(shape, input, output));
  return rows.size() == 1 && columns.size() == 1 && rows[0].shift == 0 && columns[0].shift == 0;
}

// Whether it is worth while to copy a panel that could be read as it lies, so that vectors are whole cache lines: each that
// crosses two takes as long as two, and a channel is read `reads` times. 7 x 7 pixels on AVX-512: 20% less time.
bool IsBetterAligned(const ProductPlan& plan, double reads) {
  return plan.input.pitch % plan.traits.vector_lanes != 0 && reads >= 8.0;
}

// Whether kernel rows whose offsets are not aligned are worth bands of their own. 3 x 3 over rows of 56 or 28 bytes: they are two
// of five copies, without which 29 to 58 reads a channel take 12 to 15% less time on Intel's AVX-512, 115 a tenth more.
bool AlignsRows(const ProductPlan& plan, double reads) {
  return !plan.traits.sums_quads || reads > 64.0 || !LoadsAcrossLinesWell();
}

// Reading the panel as it lies.
Staging WithoutStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  Staging staging;
  const size_t tap = static_cast<size_t>(LiveTaps(RowAxis(shape, input, output))[0].position * shape.kernel_width +
                                         LiveTaps(ColumnAxis(shape, input, output))[0].position);
  staging.taps.resize(static_cast<size_t>(shape.taps()));
  staging.windows.emplace_back(staging.taps.size(), false);
  staging.windows[0][tap] = true;
  staging.window_of_tile.assign(static_cast<size_t>(output.tiles()), 0);
  staging.row_lanes = output.tile_columns;
  staging.channel_floats = input.pitch;
  return staging;
}

// Tiles that are single rows, one plane after the other.
Staging StagingOfPixels(const ConvolutionShape& shape, bool joins, const PanelLayout& output) {
  Staging staging;
  staging.row_lanes = RoundUp(output.tile_columns, 16);
  for (int64_t tap = 0; tap < shape.taps(); ++tap) staging.taps.push_back({tap * staging.row_lanes, 0});
  staging.windows.emplace_back(staging.taps.size(), true);
  staging.window_of_tile.assign(static_cast<size_t>(output.tiles()), 0);
  staging.channel_floats = StagedPixelLanes(shape, shape.kernel_width, joins, staging.row_lanes);
  staging.copies.resize(static_cast<size_t>(output.tiles()));
  return staging;
}

// Splits a tile's lanes into equal parts of at most `most`, each a whole number of vectors.
std::vector<LaneSpan> EqualSpans(int64_t lanes, int64_t most, int64_t quantum) {
  const int64_t parts = DivideUp(lanes, most);
  const int64_t step = RoundUp(DivideUp(lanes, parts), quantum);
  std::vector<LaneSpan> spans;
  for (int64_t begin = 0; begin < lanes; begin += step) {
    spans.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(std::min(step, lanes - begin))});
  }
  return spans;
}

// The same in whole image rows, because a column shift looks at the neighbouring lanes of its row.
std::vector<LaneSpan> RowSpans(int64_t rows, int64_t row_lanes, const KernelTraits& traits) {
  const int64_t step = ShiftedRows(rows, row_lanes, traits);
  std::vector<LaneSpan> spans;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t lanes = std::min(step, rows - row) * row_lanes;
    spans.push_back({static_cast<int32_t>(row * row_lanes), static_cast<int32_t>(RoundUp(lanes, kPixelQuantum))});
  }
  return spans;
}

// Whether tiles are staged by vectors: they take more memory than copies of rows.
bool StagesVectors(const ProductPlan& plan) {
  constexpr int64_t kMostVectors = int64_t{1} << 20;
  return plan.traits.vector_lanes == 16 && plan.shape.stride_width <= 2 &&
         plan.output.tiles() * (plan.channel_floats / 16) <= kMostVectors;
}

void PlanTiles(double density, bool may_stage_vectors, Staging* staging, ProductPlan* plan) {
  int64_t longest = 0;
  for (int64_t index = 0; index < plan->output.tiles(); ++index) {
    const Tile tile = plan->output.tile(index);
    TilePlan planned;
    planned.rows = static_cast<int32_t>(tile.rows);
    planned.columns = static_cast<int32_t>(tile.columns);
    planned.window = staging->window_of_tile[static_cast<size_t>(index)];
    planned.compact = !plan->direct && tile.rows > 1 && plan->row_lanes != tile.columns;
    if (!staging->rows.empty()) {
      planned.wide_rows = std::move(staging->rows[static_cast<size_t>(index)]);
    } else if (!plan->direct) {
      planned.copies = std::move(staging->copies[static_cast<size_t>(index)]);
      if (may_stage_vectors && StagesVectors(*plan)) {
        planned.vectors = VectorsOf(planned.copies, plan->channel_floats, plan->shape.stride_width);
        planned.copies.clear();
      }
    }
    const int64_t row_lanes = plan->direct ? tile.columns : plan->row_lanes;
    const int64_t lanes = RoundUp((tile.rows - 1) * row_lanes + tile.columns, kPixelQuantum);
    if (plan->column_shift && !plan->wide_rows) {
      planned.spans = RowSpans(tile.rows, row_lanes, plan->traits);
    } else {
      const int64_t most = plan->wide_rows ? plan->traits.wide_lanes() : plan->traits.row_lanes();
      planned.spans = EqualSpans(lanes, most, plan->traits.span_quantum());
    }
    for (const LaneSpan& span : planned.spans) longest = std::max<int64_t>(longest, span.lanes);
    plan->accumulator_pitch = std::max(plan->accumulator_pitch, RoundUp(lanes, 16));
    plan->tiles.push_back(std::move(planned));
  }
  // Of fewer nonzeros the loops are so short that their ends, which no processor guesses before it has seen a layer several times,
  // cost more than rows in the order of their numbers of nonzeros do.
  constexpr double kDenseEnough = 0.4;
  plan->sums_quads = plan->traits.sums_quads && !plan->column_shift && density >= kDenseEnough;
  plan->rows_per_group = plan->column_shift ? 1 : plan->traits.RowsPerGroup(longest);
}

ColumnMask MaskWithout(int64_t column, int64_t row_lanes, int64_t lanes) {
  ColumnMask mask;
  mask.bits.assign(static_cast<size_t>(RoundUp(lanes, 16) / 16), 0);
  for (int64_t lane = 0; lane < RoundUp(lanes, 16); ++lane) {
    const bool keep = lane % row_lanes != column;
    mask.words.push_back(keep ? ~0u : 0u);
    if (keep) mask.bits[static_cast<size_t>(lane / 16)] |= static_cast<uint16_t>(1u << (lane % 16));
  }
  return mask;
}

}  // namespace

template <class Value>
Status MakeProductPlan(const ConvolutionShape& shape, const SparseMatrix<Value>& weight, int64_t height, int64_t width,
                       const PlanOptions& options, ProductPlan* plan, Staging* staging) {
  plan->shape = shape;
  const int64_t threads = std::max<int64_t>(1, options.threads);
  plan->input = MakePanelLayout(height, width, threads);
  plan->output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  plan->traits = options.traits;
  plan->nonzeros = weight.kept();

  const double density = static_cast<double>(weight.kept()) /
                         (static_cast<double>(weight.rows) * static_cast<double>(weight.columns));
  plan->pixel_planes = options.pixel_planes;
  plan->joins_last_bytes = options.joins_last_bytes;
  // Panels are of floats: halves are made of them where they are staged.
  constexpr bool kHalves = std::is_same_v<Value, Half>;
  plan->direct = !kHalves && !plan->pixel_planes && IsDirect(shape, plan->input, plan->output) &&
                 !IsBetterAligned(*plan, density * static_cast<double>(weight.rows));
  const double reads = static_cast<double>(weight.kept()) / static_cast<double>(shape.input_channels);
  if (plan->pixel_planes) {
    *staging = StagingOfPixels(shape, plan->joins_last_bytes, plan->output);
  } else if (plan->direct) {
    *staging = WithoutStaging(shape, plan->input, plan->output);
  } else if (const Status status = MakeStaging(shape, plan->input, plan->output, options.traits, options.column_shift,
                                               AlignsRows(*plan, reads), kMaximumBlockFloats, staging);
             !status.ok()) {
    return status;
  }
  plan->column_shift = staging->column_shift;
  plan->wide_rows = staging->wide_rows;
  plan->row_lanes = staging->row_lanes;
  plan->channel_floats = staging->channel_floats;
  if (plan->column_shift && !plan->wide_rows) {
    plan->keep_after_right = MaskWithout(0, plan->row_lanes, options.traits.shift_lanes);
    plan->keep_after_left = MaskWithout(plan->row_lanes - 1, plan->row_lanes, options.traits.shift_lanes);
  }
  PlanTiles(density, !kHalves, staging, plan);
  plan->accumulator_floats = RoundUp(RoundUp(shape.output_channels, options.row_quantum) * plan->accumulator_pitch + kSlackFloats, 16);
  if (plan->accumulator_floats > kMaximumScratchFloats) {
    return Status::Problem("convolution: the sums of one tile take more than 256 MiB");
  }

  const int64_t bytes = options.block_bytes > 0 ? options.block_bytes : ChooseBlockBytes(density, plan->traits.sums_quads);
  const int64_t most = kMaximumBlockFloats / plan->channel_floats;
  const int64_t wanted = std::max<int64_t>(4, bytes / (plan->channel_floats * static_cast<int64_t>(sizeof(Value))));
  const int64_t block_channels = std::clamp<int64_t>(wanted, 1, most);
  plan->tile_slices = plan->output.dealing == Dealing::kTiles ? 1 : threads;
  const int64_t windows = static_cast<int64_t>(staging->windows.size());
  if (CountBlocks(shape, block_channels) > kMaximumStreams / plan->tile_slices / windows) {
    return Status::Problem("convolution: more than 2^20 blocks of input channels over all threads");
  }
  PackStreams(weight, *staging, block_channels, options.row_quantum, options.finished_rows, plan);

  if (!plan->direct) {
    int64_t channels = 0;
    for (const ChannelBlock& block : plan->blocks) channels = std::max(channels, block.channels);
    plan->stage_floats = RoundUp(DivideUp(channels * plan->channel_floats, static_cast<int64_t>(sizeof(float) / sizeof(Value))) + kSlackFloats, 16);
  }
  return Status::Ok();
}

template Status MakeProductPlan(const ConvolutionShape&, const SparseMatrix<float>&, int64_t, int64_t,
                                const PlanOptions&, ProductPlan*, Staging*);
template Status MakeProductPlan(const ConvolutionShape&, const SparseMatrix<Half>&, int64_t, int64_t,
                                const PlanOptions&, ProductPlan*, Staging*);
template Status MakeProductPlan(const ConvolutionShape&, const SparseMatrix<Quad>&, int64_t, int64_t,
                                const PlanOptions&, ProductPlan*, Staging*);

}  // namespace gossamer
