#include "kernels/convolution_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/limits.h"
#include "kernels/staging.h"

namespace gossamer {
namespace {

// Offsets in the stream are 16 bits, in floats.
constexpr int64_t kMaximumBlockFloats = 65535;
// Kernels may read up to one vector past the last entry or the last staged pixel.
constexpr int64_t kSlackFloats = 32;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }

bool Within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

// A block is larger than the first-level cache on purpose: a longer block has longer rows in its stream, and every row
// begins and ends with its accumulators. Measured optimum on 32 KiB: 44 to 48 KB at 20% density, 52 to 56 at 10%, 62
// at 5%, which is a quarter of the cache more for each halving of the density.
int64_t ChooseBlockBytes(double density) {
  const double halvings = std::log2(0.2 / std::max(density, 1e-6));
  return static_cast<int64_t>(static_cast<double>(FirstLevelCacheBytes()) *
                              std::clamp(1.44 + 0.25 * halvings, 0.9, 2.0));
}

// One output channel's part of a channel block.
struct RowPart {
  int32_t row;
  uint32_t begin;  // of its nonzeros in the weight
  uint32_t end;
  uint32_t entries[3];  // by column shift -1, 0, 1; in pairs
};

// Writes entries by their number into steps of `step` entries; a first step of fewer takes what does not fill one.
class StepWriter {
 public:
  StepWriter(uint8_t* begin, size_t entries, size_t step) : begin_(begin), first_(entries % step), step_(step) {}

  void Write(size_t entry, float value, uint16_t offset) const {
    const bool in_first = entry < first_;
    const size_t begin = in_first ? 0 : first_ + (entry - first_) / step_ * step_;
    const size_t length = in_first ? first_ : step_;
    uint8_t* const step = begin_ + 6 * begin;
    std::memcpy(step + 4 * (entry - begin), &value, sizeof(value));
    std::memcpy(step + 4 * length + 2 * (entry - begin), &offset, sizeof(offset));
  }

 private:
  uint8_t* begin_;
  size_t first_;
  size_t step_;
};

// Calls write(value, nonzero) `entries` times for `kept` nonzeros, in their order: a row that must be longer than it is has
// some of its weights written as two halves, or as halves of halves. A weight of 0 would do for numbers, but 0 x infinity
// is NaN, where the row itself gives infinity. Powers of two make the parts exact, and from the smallest on so are their
// sums; where a weight has no more halves there are zeros.
template <class Value, class Write>
void WriteEntries(uint32_t kept, uint32_t entries, const Value& value, const Write& write) {
  const uint32_t missing = entries - kept;
  for (uint32_t i = 0; i < kept; ++i) {
    const uint32_t more = missing / kept + (i >= kept - missing % kept);
    float part = value(i);
    uint32_t halvings = 0;
    for (; halvings < more && 0.5f * part != 0.0f && 0.5f * part + 0.5f * part == part; ++halvings) part *= 0.5f;
    for (uint32_t zero = halvings; zero < more; ++zero) write(0.0f, i);
    write(part, i);
    for (; halvings > 0; --halvings, part += part) write(part, i);
  }
}

// Groups that fit into one block of channels together are worked on together.
int64_t JoinedGroups(const ConvolutionShape& shape, int64_t block_channels) {
  return std::max<int64_t>(1, block_channels / (shape.input_channels / shape.groups));
}

// Blocks that a convolution is cut into, at most.
int64_t CountBlocks(const ConvolutionShape& shape, int64_t block_channels) {
  const int64_t joined = JoinedGroups(shape, block_channels);
  const int64_t channels = std::min(joined, shape.groups) * (shape.input_channels / shape.groups);
  return DivideUp(shape.groups, joined) * DivideUp(channels, block_channels);
}

// Builds the blocks and slices of a plan.
class Packer {
 public:
  Packer(const SparseWeight& weight, const std::vector<StagedTap>& taps, ConvolutionPlan* plan)
      : weight_(weight), taps_(taps), plan_(plan), cursor_(weight.row_start.begin(), weight.row_start.end() - 1) {}

  // Adds the slices of one window of taps; `plan`'s blocks are the same for all.
  void Pack(int64_t block_channels) {
    const ConvolutionShape& shape = plan_->shape;
    plan_->blocks.clear();
    first_slice_ = plan_->slices.size();
    streams_.resize(static_cast<size_t>(plan_->tile_slices));
    plan_->slices.resize(first_slice_ + streams_.size());
    const int64_t group_channels = shape.input_channels / shape.groups;
    const int64_t group_rows = shape.output_channels / shape.groups;
    const int64_t joined = JoinedGroups(shape, block_channels);
    for (int64_t group = 0; group < shape.groups; group += joined) {
      const int64_t groups = std::min(joined, shape.groups - group);
      PackGroups(group * group_channels, groups * group_channels, group * group_rows, groups * group_rows,
                 block_channels);
    }
    for (size_t slice = 0; slice < streams_.size(); ++slice) {
      streams_[slice].resize(streams_[slice].size() + kSlackFloats * sizeof(float));
      plan_->slices[first_slice_ + slice].entries = StoredBytes(std::move(streams_[slice]));
    }
  }

 private:
  void PackGroups(int64_t first_channel, int64_t channels, int64_t first_row, int64_t rows, int64_t block_channels) {
    const std::vector<std::vector<int32_t>> cut = CutRows(first_row, rows);
    const int64_t step = DivideUp(channels, DivideUp(channels, block_channels));
    std::vector<ChannelBlock> blocks;
    for (int64_t channel = 0; channel < channels; channel += step) {
      ChannelBlock block;
      block.first_channel = first_channel + channel;
      block.channels = std::min(step, channels - channel);
      block.first = channel == 0;
      block.last = channel + block.channels == channels;
      blocks.push_back(block);
    }
    for (size_t slice = 0; slice < cut.size(); ++slice) {
      stream_ = &streams_[slice];
      PackSlice(blocks, cut[slice], &plan_->slices[first_slice_ + slice]);
    }
    plan_->blocks.insert(plan_->blocks.end(), blocks.begin(), blocks.end());
  }

  // Consecutive rows, cut where a slice has its share of the nonzeros: two threads then write to one cache line at most.
  // Rows dealt in turn are a little more equal, but at 7 x 7, where a row is three and a half lines, they took both
  // threads as long as one.
  std::vector<std::vector<int32_t>> CutRows(int64_t first_row, int64_t rows) const {
    const size_t slices = streams_.size();
    const uint64_t begin = weight_.row_start[static_cast<size_t>(first_row)];
    const uint64_t kept = weight_.row_start[static_cast<size_t>(first_row + rows)] - begin;
    std::vector<std::vector<int32_t>> cut(slices);
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      // Where there are no nonzeros at all, rows are as good a measure.
      const uint64_t before = weight_.row_start[static_cast<size_t>(row)] - begin;
      const uint64_t slice = kept > 0 ? before * slices / kept
                                      : static_cast<uint64_t>(row - first_row) * slices / static_cast<uint64_t>(rows);
      cut[std::min<size_t>(slice, slices - 1)].push_back(static_cast<int32_t>(row));
    }
    return cut;
  }

  // A row waits for the block of its next nonzero. Asking every row at every block would take rows x blocks steps, which a
  // weight without nonzeros makes as many as it likes at no cost in bytes. The first and the last block take all rows, for
  // their bias and their store.
  void PackSlice(const std::vector<ChannelBlock>& blocks, const std::vector<int32_t>& rows, RowSlice* slice) {
    std::vector<std::vector<int32_t>> waiting(blocks.size());
    waiting[0] = rows;
    for (size_t b = 0; b < blocks.size(); ++b) {
      const std::vector<int32_t> taken = std::move(waiting[b]);
      parts_.clear();
      for (const int32_t row : taken) {
        parts_.push_back(TakePart(blocks[b], row));
        if (b + 1 < blocks.size()) waiting[NextBlock(blocks, row)].push_back(row);
      }
      PackBlock(blocks[b], slice);
    }
  }

  // The block of a row's next nonzero; the last one if there is none.
  size_t NextBlock(const std::vector<ChannelBlock>& blocks, int32_t row) const {
    const size_t r = static_cast<size_t>(row);
    if (cursor_[r] == weight_.row_start[r + 1]) return blocks.size() - 1;
    const int64_t channel = weight_.column[cursor_[r]] / plan_->shape.taps() + GroupChannel(row);
    return static_cast<size_t>((channel - blocks[0].first_channel) / blocks[0].channels);
  }

  // The parts of one block, in the order of their rows.
  void PackBlock(const ChannelBlock& block, RowSlice* slice) {
    std::sort(parts_.begin(), parts_.end(), [](const RowPart& a, const RowPart& b) { return a.row < b.row; });
    BlockStream stream{stream_->size(), slice->counts.size(), slice->rows.size(), 0, 0};
    if (plan_->column_shift) {
      PackShifted(block, slice);
      stream.singles = static_cast<int32_t>(parts_.size());
    } else {
      PackGrouped(block, slice, &stream);
    }
    slice->streams.push_back(stream);
  }

  // The nonzeros of `row` within the block. Blocks of a row come in ascending order of channels.
  RowPart TakePart(const ChannelBlock& block, int32_t row) {
    const size_t r = static_cast<size_t>(row);
    const int64_t limit = (block.first_channel + block.channels - GroupChannel(row)) * plan_->shape.taps();
    RowPart part{row, cursor_[r], cursor_[r], {0, 0, 0}};
    while (part.end < weight_.row_start[r + 1] && weight_.column[part.end] < limit) {
      if (plan_->column_shift) ++part.entries[Tap(part.end).column_shift + 1];
      ++part.end;
    }
    cursor_[r] = part.end;
    for (uint32_t& entries : part.entries) entries = (entries + 1) / 2;
    return part;
  }

  // Rows in order of their number of nonzeros, the same number for all rows of a group: the shorter ones are made longer
  // (WriteEntries), at most 5% of all in practice. Rows without nonzeros have groups of their own: they must read nothing.
  void PackGrouped(const ChannelBlock& block, RowSlice* slice, BlockStream* stream) {
    std::stable_sort(parts_.begin(), parts_.end(),
                     [](const RowPart& a, const RowPart& b) { return a.end - a.begin < b.end - b.begin; });
    const size_t width = static_cast<size_t>(plan_->rows_per_group);
    const size_t empty = static_cast<size_t>(
        std::find_if(parts_.begin(), parts_.end(), [](const RowPart& part) { return part.end > part.begin; }) -
        parts_.begin());
    // Single are the last of those without and the first of those with nonzeros.
    const size_t first = empty - empty % width;
    const size_t last = empty + (parts_.size() - empty) % width;
    for (size_t i = 0; i < first; i += width) EmitGroup(block, &parts_[i], width, slice);
    for (size_t i = last; i < parts_.size(); i += width) EmitGroup(block, &parts_[i], width, slice);
    for (size_t i = first; i < last; ++i) EmitGroup(block, &parts_[i], 1, slice);
    stream->singles = static_cast<int32_t>(last - first);
    stream->groups = static_cast<int32_t>((parts_.size() - (last - first)) / width);
  }

  void EmitGroup(const ChannelBlock& block, const RowPart* parts, size_t width, RowSlice* slice) {
    const uint32_t count = parts[width - 1].end - parts[width - 1].begin;  // the largest
    slice->counts.push_back(count);
    uint8_t* const entry = Append(count * width);
    for (size_t g = 0; g < width; ++g) slice->rows.push_back(parts[g].row);
    const StepWriter writer(entry, count * width, width * static_cast<size_t>(StepNonzeros(static_cast<int64_t>(width))));
    for (size_t g = 0; g < width; ++g) {
      const RowPart& part = parts[g];
      size_t entry_of_row = g;
      WriteEntries(
          part.end - part.begin, count, [&](uint32_t i) { return weight_.value[part.begin + i]; },
          [&](float value, uint32_t i) {
            writer.Write(entry_of_row, value, Offset(block, part, part.begin + i));
            entry_of_row += width;
          });
    }
    plan_->entries += count * width;
  }

  // Each row by itself, its nonzeros by the shift that their column needs, each part in pairs.
  void PackShifted(const ChannelBlock& block, RowSlice* slice) {
    std::stable_sort(parts_.begin(), parts_.end(), [](const RowPart& a, const RowPart& b) {
      return std::lexicographical_compare(a.entries, a.entries + 3, b.entries, b.entries + 3);
    });
    for (const RowPart& part : parts_) {
      slice->rows.push_back(part.row);
      for (int shift = -1; shift <= 1; ++shift) {
        const uint32_t pairs = part.entries[shift + 1];
        slice->counts.push_back(pairs);
        const StepWriter writer(Append(2 * pairs), 2 * pairs, 4);
        shifted_.clear();
        for (uint32_t i = part.begin; i < part.end; ++i) {
          if (Tap(i).column_shift == shift) shifted_.push_back(i);
        }
        uint32_t written = 0;
        WriteEntries(
            static_cast<uint32_t>(shifted_.size()), 2 * pairs, [&](uint32_t i) { return weight_.value[shifted_[i]]; },
            [&](float value, uint32_t i) { writer.Write(written++, value, Offset(block, part, shifted_[i])); });
        plan_->entries += 2 * pairs;
      }
    }
  }

  uint8_t* Append(size_t entries) {
    const size_t size = stream_->size();
    stream_->resize(size + 6 * entries);
    return stream_->data() + size;
  }

  const StagedTap& Tap(uint32_t nonzero) const {
    return taps_[weight_.column[nonzero] % static_cast<uint32_t>(plan_->shape.taps())];
  }

  uint16_t Offset(const ChannelBlock& block, const RowPart& part, uint32_t nonzero) const {
    const int64_t channel = weight_.column[nonzero] / plan_->shape.taps() + GroupChannel(part.row);
    return static_cast<uint16_t>((channel - block.first_channel) * plan_->channel_floats + Tap(nonzero).offset);
  }

  // The first input channel that a row's group reads.
  int64_t GroupChannel(int32_t row) const {
    const ConvolutionShape& shape = plan_->shape;
    return row / (shape.output_channels / shape.groups) * (shape.input_channels / shape.groups);
  }

  const SparseWeight& weight_;
  const std::vector<StagedTap>& taps_;
  ConvolutionPlan* plan_;
  std::vector<uint32_t> cursor_;  // the first nonzero of each row that no block has taken yet
  size_t first_slice_ = 0;                     // of the plan's, that this packs
  std::vector<std::vector<uint8_t>> streams_;  // the entries of each slice
  std::vector<uint8_t>* stream_ = nullptr;     // of the slice that is packed now
  std::vector<RowPart> parts_;
  std::vector<uint32_t> shifted_;  // nonzeros of one column shift
};

// The weight without the nonzeros of taps that a window does not need.
SparseWeight Needed(const SparseWeight& weight, const std::vector<bool>& window) {
  SparseWeight needed;
  needed.shape = weight.shape;
  needed.rows = weight.rows;
  needed.columns = weight.columns;
  needed.row_start.push_back(0);
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      if (!window[weight.column[i] % window.size()]) continue;
      needed.column.push_back(weight.column[i]);
      needed.value.push_back(weight.value[i]);
    }
    needed.row_start.push_back(static_cast<uint32_t>(needed.value.size()));
  }
  return needed;
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

void PlanTiles(Staging* staging, ConvolutionPlan* plan) {
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

ConvolutionShape Turned(const ConvolutionShape& shape) {
  ConvolutionShape turned = shape;
  std::swap(turned.kernel_height, turned.kernel_width);
  std::swap(turned.stride_height, turned.stride_width);
  std::swap(turned.dilation_height, turned.dilation_width);
  turned.pad_top = shape.pad_left;
  turned.pad_bottom = shape.pad_right;
  turned.pad_left = shape.pad_top;
  turned.pad_right = shape.pad_bottom;
  return turned;
}

Status CheckNumbers(const ConvolutionShape& shape) {
  for (const int64_t extent : {shape.input_channels, shape.output_channels, shape.groups, shape.kernel_height,
                               shape.kernel_width, shape.stride_height, shape.stride_width, shape.dilation_height,
                               shape.dilation_width}) {
    if (!Within(extent, 1, kMaximumExtent)) {
      return Status::Problem("convolution: channels, groups, kernel, strides and dilations must be within 1 to 2^24");
    }
  }
  if (shape.taps() > kMaximumTaps) return Status::Problem("convolution: a kernel of more than 2^14 positions");
  for (const int64_t pad : {shape.pad_top, shape.pad_left, shape.pad_bottom, shape.pad_right}) {
    if (!Within(pad, 0, kMaximumPadding)) return Status::Problem("convolution: padding must be within 0 and 2^16");
  }
  if (shape.input_channels % shape.groups != 0 || shape.output_channels % shape.groups != 0) {
    return Status::Problem("convolution: the groups do not divide the channels");
  }
  return Status::Ok();
}

Status CheckConvolution(const ConvolutionShape& shape, const SparseWeight& weight) {
  if (const Status status = CheckNumbers(shape); !status.ok()) return status;
  if (weight.rows != shape.output_channels || weight.columns % shape.taps() != 0 ||
      weight.columns / shape.taps() != shape.input_channels / shape.groups) {
    return Status::Problem("convolution: the weight's shape is not [output, input / groups, kernel height, width]");
  }
  return Status::Ok();
}

Status CheckImage(const ConvolutionShape& shape, int64_t height, int64_t width) {
  if (const Status status = CheckPanelSize(shape.input_channels, height, width); !status.ok()) return status;
  const int64_t reach_height = shape.dilation_height * (shape.kernel_height - 1) + 1;
  const int64_t reach_width = shape.dilation_width * (shape.kernel_width - 1) + 1;
  if (height + shape.pad_top + shape.pad_bottom < reach_height ||
      width + shape.pad_left + shape.pad_right < reach_width) {
    return Status::Problem("convolution: the kernel is larger than the padded image");
  }
  return CheckPanelSize(shape.output_channels, shape.output_height(height), shape.output_width(width));
}

Status MakeConvolutionPlan(const ConvolutionShape& shape, const SparseWeight& weight, const float* bias,
                           const Epilogue& epilogue, int64_t height, int64_t width, const PlanOptions& options,
                           ConvolutionPlan* plan) {
  if (GoesAlongOneColumn(shape, height, width)) {
    return MakeConvolutionPlan(Turned(shape), weight, bias, epilogue, width, height, options, plan);
  }
  *plan = ConvolutionPlan();
  plan->shape = shape;
  const int64_t threads = std::max<int64_t>(1, options.threads);
  plan->input = MakePanelLayout(height, width, threads);
  plan->output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  plan->epilogue = epilogue;
  plan->traits = options.traits;
  plan->nonzeros = weight.kept();
  if (bias == nullptr) {
    plan->bias.assign(static_cast<size_t>(shape.output_channels), 0.0f);
  } else {
    plan->bias.assign(bias, bias + shape.output_channels);
  }

  plan->direct = IsDirect(shape, plan->input, plan->output);
  Staging staging;
  if (plan->direct) {
    staging = WithoutStaging(shape, plan->input, plan->output);
  } else if (const Status status = MakeStaging(shape, plan->input, plan->output, options.traits, options.column_shift,
                                               kMaximumBlockFloats, &staging);
             !status.ok()) {
    return status;
  }
  plan->column_shift = staging.column_shift;
  plan->wide_rows = staging.wide_rows;
  plan->row_lanes = staging.row_lanes;
  plan->channel_floats = staging.channel_floats;
  if (plan->column_shift && !plan->wide_rows) {
    plan->keep_after_right = MaskWithout(0, plan->row_lanes, options.traits.shift_lanes);
    plan->keep_after_left = MaskWithout(plan->row_lanes - 1, plan->row_lanes, options.traits.shift_lanes);
  }
  PlanTiles(&staging, plan);
  plan->accumulator_floats = RoundUp(shape.output_channels * plan->accumulator_pitch + kSlackFloats, 16);
  if (plan->accumulator_floats > kMaximumScratchFloats) {
    return Status::Problem("convolution: the sums of one tile take more than 256 MiB");
  }

  const double density = static_cast<double>(weight.kept()) /
                         (static_cast<double>(weight.rows) * static_cast<double>(weight.columns));
  const int64_t bytes = options.block_bytes > 0 ? options.block_bytes : ChooseBlockBytes(density);
  const int64_t most = kMaximumBlockFloats / plan->channel_floats;
  const int64_t wanted = std::max<int64_t>(4, bytes / (plan->channel_floats * static_cast<int64_t>(sizeof(float))));
  const int64_t block_channels = std::clamp<int64_t>(wanted, 1, most);
  plan->tile_slices = plan->output.dealing == Dealing::kTiles ? 1 : threads;
  const int64_t windows = static_cast<int64_t>(staging.windows.size());
  if (CountBlocks(shape, block_channels) > kMaximumStreams / plan->tile_slices / windows) {
    return Status::Problem("convolution: more than 2^20 blocks of input channels over all threads");
  }
  for (const std::vector<bool>& window : staging.windows) {
    const bool all = std::find(window.begin(), window.end(), false) == window.end();
    const SparseWeight needed = all ? SparseWeight() : Needed(weight, window);
    Packer(all ? weight : needed, staging.taps, plan).Pack(block_channels);
  }

  if (!plan->direct) {
    int64_t channels = 0;
    for (const ChannelBlock& block : plan->blocks) channels = std::max(channels, block.channels);
    plan->stage_floats = RoundUp(channels * plan->channel_floats + kSlackFloats, 16);
  }
  return Status::Ok();
}

}  // namespace gossamer
