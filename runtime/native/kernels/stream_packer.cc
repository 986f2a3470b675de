#include "kernels/stream_packer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "format/half.h"
#include "kernels/quantised_weight.h"

namespace gossamer {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One output channel's part of a channel block.
struct RowPart {
  int32_t row;
  uint32_t begin;  // of its nonzeros in the weight
  uint32_t end;
  uint32_t entries[3];  // by column shift -1, 0, 1; in pairs
};

// Some of those, one after the other.
class Parts {
 public:
  Parts(RowPart* begin, RowPart* end) : begin_(begin), end_(end) {}
  RowPart* begin() const { return begin_; }
  RowPart* end() const { return end_; }
  size_t size() const { return static_cast<size_t>(end_ - begin_); }

 private:
  RowPart* begin_;
  RowPart* end_;
};

// A nonzero and its offset.
template <class Value>
constexpr size_t kEntryBytes = sizeof(Value) + sizeof(uint16_t);

// Writes entries by their number into steps of `step` entries; a first step of fewer takes what does not fill one.
class StepWriter {
 public:
  StepWriter(uint8_t* begin, size_t entries, size_t step) : begin_(begin), first_(entries % step), step_(step) {}

  template <class Value>
  void Write(size_t entry, const Value& value, uint16_t offset) const {
    const bool in_first = entry < first_;
    const size_t begin = in_first ? 0 : first_ + (entry - first_) / step_ * step_;
    const size_t length = in_first ? first_ : step_;
    uint8_t* const step = begin_ + kEntryBytes<Value> * begin;
    std::memcpy(step + sizeof(value) * (entry - begin), &value, sizeof(value));
    std::memcpy(step + sizeof(value) * length + sizeof(offset) * (entry - begin), &offset, sizeof(offset));
  }

 private:
  uint8_t* begin_;
  size_t first_;
  size_t step_;
};

// Calls write(value) for a value that `more` further entries follow: it is written as two halves, or as halves of halves. A
// weight of 0 would do for numbers, but 0 x infinity is NaN, where the row itself gives infinity. Powers of two make the
// parts exact, and from the smallest on so are their sums; where a weight has no more halves there are zeros.
template <class Write>
void WriteParts(float part, uint32_t more, const Write& write) {
  uint32_t halvings = 0;
  for (; halvings < more && 0.5f * part != 0.0f && 0.5f * part + 0.5f * part == part; ++halvings) part *= 0.5f;
  for (uint32_t zero = halvings; zero < more; ++zero) write(0.0f);
  write(part);
  for (; halvings > 0; --halvings, part += part) write(part);
}

// Zeros add nothing to a sum of bytes.
template <class Write>
void WriteParts(const Quad& quad, uint32_t more, const Write& write) {
  for (; more > 0; --more) write(Quad{});
  write(quad);
}

// Rows of halves are not made longer: each is a group.
template <class Write>
void WriteParts(const Half& half, uint32_t, const Write& write) {
  write(half);
}

// Calls write(value, nonzero) `entries` times for `kept` nonzeros, in their order: those of a row that must be longer than
// it is are written in parts.
template <class Value, class Write>
void WriteEntries(uint32_t kept, uint32_t entries, const Value& value, const Write& write) {
  const uint32_t missing = entries - kept;
  for (uint32_t i = 0; i < kept; ++i) {
    const uint32_t more = missing / kept + (i >= kept - missing % kept);
    WriteParts(value(i), more, [&](const auto& part) { write(part, i); });
  }
}

// Groups that fit into one block of channels together are worked on together.
int64_t JoinedGroups(const ConvolutionShape& shape, int64_t block_channels) {
  return std::max<int64_t>(1, block_channels / (shape.input_channels / shape.groups));
}

// Builds the blocks and slices of a plan.
template <class Value>
class Packer {
 public:
  Packer(const SparseMatrix<Value>& weight, const std::vector<StagedTap>& taps, int64_t row_quantum, int64_t finished_rows,
         ProductPlan* plan)
      : weight_(weight),
        taps_(taps),
        row_quantum_(row_quantum),
        finished_rows_(finished_rows > 0 ? static_cast<size_t>(finished_rows) : SIZE_MAX),
        plan_(plan),
        cursor_(weight.row_start.begin(), weight.row_start.end() - 1) {}

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
      RowSlice& packed = plan_->slices[first_slice_ + slice];
      packed.first_stream.push_back(packed.streams.size());
      packed.entries = StoredBytes(std::move(streams_[slice]));
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
    uint64_t slice = 0;
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      if (row % row_quantum_ == 0 || row == first_row) {
        // Where there are no nonzeros at all, rows are as good a measure.
        const uint64_t before = weight_.row_start[static_cast<size_t>(row)] - begin;
        slice = kept > 0 ? before * slices / kept
                         : static_cast<uint64_t>(row - first_row) * slices / static_cast<uint64_t>(rows);
      }
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

  // The parts of one block.
  void PackBlock(const ChannelBlock& block, RowSlice* slice) {
    std::sort(parts_.begin(), parts_.end(), [](const RowPart& a, const RowPart& b) { return a.row < b.row; });
    slice->first_stream.push_back(slice->streams.size());
    const size_t step = block.last ? finished_rows_ : SIZE_MAX;
    size_t begin = 0;
    do {
      const size_t rows = std::min(step, parts_.size() - begin);
      slice->streams.push_back(PackStream(block, {parts_.data() + begin, parts_.data() + begin + rows}, slice));
      begin += rows;
    } while (begin < parts_.size());
  }

  // Some parts of one block, in the order of their rows.
  BlockStream PackStream(const ChannelBlock& block, Parts parts, RowSlice* slice) {
    BlockStream stream{stream_->size(), slice->counts.size(), slice->rows.size(), 0, 0, {0, 0}};
    if (block.last && parts.size() != 0) stream.finished = {parts.begin()->row, (parts.end() - 1)->row + 1};
    if (plan_->column_shift) {
      PackShifted(block, parts, slice);
      stream.singles = static_cast<int32_t>(parts.size());
    } else if (plan_->sums_quads) {
      stream.groups = PackQuads(block, parts, slice);
    } else {
      PackGrouped(block, parts, slice, &stream);
    }
    return stream;
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
  void PackGrouped(const ChannelBlock& block, Parts parts, RowSlice* slice, BlockStream* stream) {
    std::stable_sort(parts.begin(), parts.end(),
                     [](const RowPart& a, const RowPart& b) { return a.end - a.begin < b.end - b.begin; });
    const size_t width = static_cast<size_t>(plan_->rows_per_group);
    const size_t empty = static_cast<size_t>(
        std::find_if(parts.begin(), parts.end(), [](const RowPart& part) { return part.end > part.begin; }) -
        parts.begin());
    // Single are the last of those without and the first of those with nonzeros.
    const size_t first = empty - empty % width;
    const size_t last = empty + (parts.size() - empty) % width;
    for (size_t i = 0; i < first; i += width) EmitGroup(block, parts.begin() + i, width, slice);
    for (size_t i = last; i < parts.size(); i += width) EmitGroup(block, parts.begin() + i, width, slice);
    for (size_t i = first; i < last; ++i) EmitGroup(block, parts.begin() + i, 1, slice);
    stream->singles = static_cast<int32_t>(last - first);
    stream->groups = static_cast<int32_t>((parts.size() - (last - first)) / width);
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
          [&](const Value& value, uint32_t i) {
            writer.Write(entry_of_row, value, Offset(block, part, part.begin + i));
            entry_of_row += width;
          });
    }
    plan_->entries += count * width;
  }

  // Quads of neighbouring rows, those without a part as rows without nonzeros. Returns their number.
  int32_t PackQuads(const ChannelBlock& block, Parts parts, RowSlice* slice) {
    int32_t quads = 0;
    for (const RowPart* part = parts.begin(); part != parts.end(); ++quads) {
      RowPart of_quad[kQuad] = {};
      const int32_t first = static_cast<int32_t>(part->row - part->row % kQuad);
      for (; part != parts.end() && part->row < first + kQuad; ++part) of_quad[part->row - first] = *part;
      slice->rows.push_back(first);
      EmitPair(block, of_quad, slice);
      EmitPair(block, of_quad + 2, slice);
    }
    return quads;
  }

  // Counts, both of steps: nonzeros at the same two places of both rows; and then two of each, wherever they are. Ends of loops are
  // guesses, so the shorter row is filled up with zeros.
  void EmitPair(const ChannelBlock& block, const RowPart* parts, RowSlice* slice) {
    const Shared shared = SharedBy(parts, WorthSharing(block));
    const size_t each = (std::max(shared.only[0].size(), shared.only[1].size()) + 1) / 2;
    slice->counts.push_back(static_cast<uint32_t>(shared.both.size() / 2));
    slice->counts.push_back(static_cast<uint32_t>(each));
    for (size_t i = 0; i < shared.both.size(); i += 2) {
      for (size_t k = 0; k < 2; ++k) {
        for (size_t r = 0; r < 2; ++r) AppendBytes(weight_.value[shared.both[i + k][r]]);
      }
      for (size_t k = 0; k < 2; ++k) AppendBytes(Offset(block, parts[0], shared.both[i + k][0]));
    }
    const StepWriter writer(Append(4 * each), 4 * each, 4);
    for (size_t r = 0; r < 2; ++r) {
      for (size_t i = 0; i < shared.only[r].size(); ++i) {
        const uint32_t nonzero = shared.only[r][i];
        writer.Write(2 * i + r, weight_.value[nonzero], Offset(block, parts[r], nonzero));
      }
    }
    plan_->entries += 2 * shared.both.size() + 4 * each;
  }

  // Whether two rows are likely to have so many nonzeros at the same places that a loop for them saves more than its end costs.
  bool WorthSharing(const ChannelBlock& block) const {
    constexpr double kFew = 6.0;
    const double places = static_cast<double>(block.channels * plan_->shape.taps());
    const double density = static_cast<double>(weight_.kept()) /
                           (static_cast<double>(weight_.rows) * static_cast<double>(weight_.columns));
    return places * density * density >= kFew;
  }

  // Nonzeros of two rows: an even number of those at the same places, and the others of each.
  struct Shared {
    std::vector<std::array<uint32_t, 2>> both;
    std::vector<uint32_t> only[2];
  };

  Shared SharedBy(const RowPart* parts, bool share) const {
    Shared shared;
    uint32_t at[2] = {parts[0].begin, parts[1].begin};
    while (share && at[0] < parts[0].end && at[1] < parts[1].end) {
      const uint32_t column[2] = {weight_.column[at[0]], weight_.column[at[1]]};
      if (column[0] == column[1]) {
        shared.both.push_back({at[0]++, at[1]++});
      } else {
        const size_t r = column[0] < column[1] ? 0 : 1;
        shared.only[r].push_back(at[r]++);
      }
    }
    for (size_t r = 0; r < 2; ++r) {
      for (; at[r] < parts[r].end; ++at[r]) shared.only[r].push_back(at[r]);
      if (shared.both.size() % 2 != 0) shared.only[r].push_back(shared.both.back()[r]);
    }
    if (shared.both.size() % 2 != 0) shared.both.pop_back();
    return shared;
  }

  template <class Part>
  void AppendBytes(const Part& value) {
    const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(&value);
    stream_->insert(stream_->end(), bytes, bytes + sizeof(value));
  }

  // Each row by itself, its nonzeros by the shift that their column needs, each part in pairs.
  void PackShifted(const ChannelBlock& block, Parts parts, RowSlice* slice) {
    std::stable_sort(parts.begin(), parts.end(), [](const RowPart& a, const RowPart& b) {
      return std::lexicographical_compare(a.entries, a.entries + 3, b.entries, b.entries + 3);
    });
    for (const RowPart& part : parts) {
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
            [&](const Value& value, uint32_t i) { writer.Write(written++, value, Offset(block, part, shifted_[i])); });
        plan_->entries += 2 * pairs;
      }
    }
  }

  uint8_t* Append(size_t entries) {
    const size_t size = stream_->size();
    stream_->resize(size + kEntryBytes<Value> * entries);
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

  const SparseMatrix<Value>& weight_;
  const std::vector<StagedTap>& taps_;
  const int64_t row_quantum_;
  const size_t finished_rows_;
  ProductPlan* plan_;
  std::vector<uint32_t> cursor_;  // the first nonzero of each row that no block has taken yet
  size_t first_slice_ = 0;                     // of the plan's, that this packs
  std::vector<std::vector<uint8_t>> streams_;  // the entries of each slice
  std::vector<uint8_t>* stream_ = nullptr;     // of the slice that is packed now
  std::vector<RowPart> parts_;
  std::vector<uint32_t> shifted_;  // nonzeros of one column shift
};

// The weight without the nonzeros of taps that a window does not need.
template <class Value>
SparseMatrix<Value> Needed(const SparseMatrix<Value>& weight, const std::vector<bool>& window) {
  SparseMatrix<Value> needed;
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

}  // namespace

int64_t CountBlocks(const ConvolutionShape& shape, int64_t block_channels) {
  const int64_t joined = JoinedGroups(shape, block_channels);
  const int64_t channels = std::min(joined, shape.groups) * (shape.input_channels / shape.groups);
  return DivideUp(shape.groups, joined) * DivideUp(channels, block_channels);
}

template <class Value>
void PackStreams(const SparseMatrix<Value>& weight, const Staging& staging, int64_t block_channels, int64_t row_quantum,
                 int64_t finished_rows, ProductPlan* plan) {
  for (const std::vector<bool>& window : staging.windows) {
    const bool all = std::find(window.begin(), window.end(), false) == window.end();
    const SparseMatrix<Value> needed = all ? SparseMatrix<Value>() : Needed(weight, window);
    Packer<Value>(all ? weight : needed, staging.taps, row_quantum, finished_rows, plan).Pack(block_channels);
  }
}

template void PackStreams(const SparseMatrix<float>&, const Staging&, int64_t, int64_t, int64_t, ProductPlan*);
template void PackStreams(const SparseMatrix<Half>&, const Staging&, int64_t, int64_t, int64_t, ProductPlan*);
template void PackStreams(const SparseMatrix<Quad>&, const Staging&, int64_t, int64_t, int64_t, ProductPlan*);

}  // namespace gossamer
