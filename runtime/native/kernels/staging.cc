#include "kernels/staging.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/limits.h"

namespace gossamer {
namespace {

constexpr int64_t kBandAlignment = 8;  // floats, at least

int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Staged rows of one residue: rows first_shift .. first_shift + rows - 1, counted from the tile's first row.
struct Band {
  int64_t residue;
  int64_t first_shift;
  int64_t last_shift;
  int64_t phase;  // of the shifts that it serves
  int64_t offset = 0;
  int64_t first_row = 0;  // of its rows among those of all bands

  int64_t rows(int64_t outputs) const { return outputs + last_shift - first_shift; }
};

struct Bands {
  std::vector<Band> bands;
  std::vector<size_t> of_tap;

  const Band& of(size_t tap) const { return bands[of_tap[tap]]; }
  int64_t rows(int64_t outputs) const {
    int64_t all = 0;
    for (const Band& band : bands) all += band.rows(outputs);
    return all;
  }
};

// Taps of one residue whose outputs, `outputs` of them, have no pixel in common get bands of their own: what lies between
// is not read. So do those whose shifts differ modulo `period`.
Bands MakeBands(const std::vector<AxisTap>& taps, int64_t outputs, int64_t period) {
  Bands found;
  for (const AxisTap& tap : taps) {
    const int64_t phase = (tap.shift % period + period) % period;
    const auto last = std::find_if(found.bands.rbegin(), found.bands.rend(), [&](const Band& band) {
      return band.residue == tap.residue && band.phase == phase;
    });
    if (last != found.bands.rend() && tap.shift < last->last_shift + outputs) {
      last->last_shift = tap.shift;
      found.of_tap.push_back(static_cast<size_t>(found.bands.rend() - last) - 1);
    } else {
      found.of_tap.push_back(found.bands.size());
      found.bands.push_back({tap.residue, tap.shift, tap.shift, phase});
    }
  }
  return found;
}

// Whether each tap has rows of its own, so that these may follow one another without a gap.
bool AreApart(const std::vector<AxisTap>& taps, int64_t outputs) {
  return MakeBands(taps, outputs, 1).bands.size() == taps.size();
}

// Which staged rows the taps of `range` read for `outputs` rows of a tile, over all bands.
std::vector<bool> RowsRead(const std::vector<AxisTap>& taps, const Bands& bands, const Range& range, int64_t tile_rows,
                           int64_t outputs) {
  std::vector<bool> read(static_cast<size_t>(bands.rows(tile_rows)), false);
  for (int64_t tap = range.first; tap < range.last; ++tap) {
    const Band& band = bands.of(static_cast<size_t>(tap));
    const int64_t first = band.first_row + taps[static_cast<size_t>(tap)].shift - band.first_shift;
    std::fill_n(read.begin() + first, outputs, true);
  }
  return read;
}

// Shifting in registers moves zeros in at the image's borders, so tiles must be whole rows, and the pixel that the last
// one of a row takes from its right must be either padding or staged beside it.
bool CanShiftColumns(const std::vector<AxisTap>& columns, const ConvolutionShape& shape, const PanelLayout& input,
                     const PanelLayout& output, int64_t row_lanes, const KernelTraits& traits) {
  if (output.segments != 1 || ShiftedRows(output.tile_rows, row_lanes, traits) == 0) return false;
  bool shifts = false;
  for (const AxisTap& tap : columns) {
    if (tap.shift < -1 || tap.shift > 1) return false;
    const bool right_is_padding = output.width * shape.stride_width + tap.residue >= input.width;
    if (tap.shift == 1 && !right_is_padding && row_lanes == output.width) return false;
    shifts |= tap.shift != 0;
  }
  return shifts;
}

// With a pixel more on either side it does not matter where tiles end.
bool CanShiftWideRows(const std::vector<AxisTap>& columns, const PanelLayout& output) {
  bool shifts = false;
  for (const AxisTap& tap : columns) {
    if (tap.shift < -1 || tap.shift > 1) return false;
    shifts |= tap.shift != 0;
  }
  // Cut rows are tiles by themselves.
  return shifts && output.segments > 1 && output.tile_rows == 1;
}

int64_t ChooseRowLanes(const std::vector<AxisTap>& rows, const PanelLayout& output) {
  if (rows.size() <= 1 || (output.tile_rows > 1 && AreApart(rows, output.tile_rows))) return output.tile_columns;
  const int64_t by_4 = RoundUp(output.tile_columns, 4);
  const int64_t by_8 = RoundUp(output.tile_columns, 8);
  // One band instead of two where that costs no further 16 lanes.
  return RoundUp(output.tile_rows * by_8, 16) <= RoundUp(output.tile_rows * by_4, 16) ? by_8 : by_4;
}

// Input and output are cut into the same segments where the convolution keeps the width.
bool StagesWholeSegments(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output) {
  return shape.stride_width == 1 && input.width == output.width;
}

// The staged rows of a tile whose input columns are those of one tile of the input, and one more on either side.
std::vector<StageRow> WideTileRows(const ConvolutionShape& shape, const PanelLayout& input, const Tile& tile,
                                   const Bands& bands, const std::vector<bool>& read, int64_t row_lanes) {
  const auto place = [&](int64_t row, int64_t column) -> int64_t {
    if (row < 0 || row >= input.height || column < 0 || column >= input.width) return -1;
    return input.tile_of(row, column) * shape.input_channels * input.pitch + input.offset_in_tile(row, column);
  };
  std::vector<StageRow> rows;
  for (const Band& band : bands.bands) {
    for (int64_t r = 0; r < band.rows(tile.rows); ++r) {
      if (!read[static_cast<size_t>(band.first_row + r)]) continue;
      const int64_t row = (tile.row + band.first_shift + r) * shape.stride_height + band.residue;
      rows.push_back({place(row, tile.column - 1), place(row, tile.column), place(row, tile.column + tile.columns),
                      static_cast<int32_t>(band.offset + r * row_lanes), static_cast<int32_t>(tile.columns)});
    }
  }
  return rows;
}

// Whether staging `staged_rows` rows of `lanes` pixels for each tile takes few enough copies: one for each tile of the input
// that a row crosses, or even for each pixel where the stride is larger than those.
Status CheckCopies(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                   int64_t staged_rows, int64_t lanes) {
  const double crossed = static_cast<double>(lanes) * static_cast<double>(shape.stride_width) /
                         static_cast<double>(input.tile_columns);
  const double pieces = input.segments == 1 ? 1.0 : std::min(crossed + 2.0, static_cast<double>(lanes));
  if (static_cast<double>(output.tiles()) * static_cast<double>(staged_rows) * pieces >
      static_cast<double>(kMaximumStageCopies)) {
    return Status::Problem("convolution: the image is too large for such a kernel, its plan would take more than 384 MiB");
  }
  return Status::Ok();
}

// Collects the copies of one tile, joined where source and target both go on.
class CopyList {
 public:
  CopyList(const PanelLayout& input, const ConvolutionShape& shape) : input_(input), shape_(shape) {}

  // Stages `lanes` pixels of input row `row`: lane x is column (first + x) * stride + residue.
  void AddRow(int64_t row, int64_t first, int64_t residue, int64_t lanes, int64_t target) {
    const int64_t stride = shape_.stride_width;
    const int64_t begin = std::clamp<int64_t>(-first, 0, lanes);
    const int64_t end = std::clamp<int64_t>(FloorDivide(input_.width - 1 - residue, stride) - first + 1, begin, lanes);
    if (row < 0 || row >= input_.height || begin == end) {
      Add({-1, static_cast<int32_t>(target), static_cast<int32_t>(lanes), 0, 0});
      return;
    }
    for (int64_t x = begin; x < end;) {
      const int64_t column = (first + x) * stride + residue;
      const int64_t segment_end = (column / input_.tile_columns + 1) * input_.tile_columns;
      const int64_t piece_end = std::min(end, x + (segment_end - column + stride - 1) / stride);
      const int64_t source = input_.tile_of(row, column) * shape_.input_channels * input_.pitch +
                             input_.offset_in_tile(row, column);
      const int64_t zeros_left = x == begin ? begin : 0;
      Add({source, static_cast<int32_t>(target + x - zeros_left), static_cast<int32_t>(zeros_left),
           static_cast<int32_t>(piece_end - x), static_cast<int32_t>(piece_end == end ? lanes - end : 0)});
      x = piece_end;
    }
  }

  std::vector<StageCopy> Take() { return std::move(copies_); }

 private:
  void Add(const StageCopy& copy) {
    if (!copies_.empty() && shape_.stride_width == 1 && copy.source >= 0) {
      StageCopy& last = copies_.back();
      if (last.source >= 0 && last.zeros_right == 0 && copy.zeros_left == 0 && copy.source == last.source + last.count &&
          copy.target == last.target + last.zeros_left + last.count) {
        last.count += copy.count;
        last.zeros_right = copy.zeros_right;
        return;
      }
    }
    copies_.push_back(copy);
  }

  const PanelLayout& input_;
  const ConvolutionShape& shape_;
  std::vector<StageCopy> copies_;
};

}  // namespace

int64_t ShiftedRows(int64_t rows, int64_t row_lanes, const KernelTraits& traits) {
  if (rows * row_lanes <= traits.shift_lanes) return rows;
  const int64_t step = traits.span_quantum() / std::gcd(row_lanes, traits.span_quantum());
  return traits.shift_lanes / row_lanes / step * step;
}

Status MakeStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                   const KernelTraits& traits, bool may_shift, bool aligned_rows, int64_t most_floats, Staging* staging) {
  *staging = Staging();
  const Axis row_axis = RowAxis(shape, input, output);
  const Axis column_axis = ColumnAxis(shape, input, output);
  const std::vector<AxisTap> rows = LiveTaps(row_axis);
  const std::vector<AxisTap> columns = LiveTaps(column_axis);
  staging->row_lanes = ChooseRowLanes(rows, output);
  staging->wide_rows = may_shift && CanShiftWideRows(columns, output);
  // Whole cache lines: the loads of every other kernel row would cross two of them otherwise.
  if (staging->wide_rows) staging->row_lanes = RoundUp(output.tile_columns + 2, 16);
  staging->column_shift = staging->wide_rows || (may_shift && CanShiftColumns(columns, shape, input, output,
                                                                            staging->row_lanes, traits));

  // Rows of the image that lie so many apart begin whole vectors apart.
  const int64_t period = aligned_rows ? traits.vector_lanes / std::gcd(staging->row_lanes, traits.vector_lanes) : 1;
  const int64_t alignment = std::max(kBandAlignment, traits.vector_lanes);
  Bands bands = MakeBands(rows, output.tile_rows, AreApart(rows, output.tile_rows) ? 1 : period);
  int64_t plane_floats = 0;
  int64_t plane_rows = 0;
  for (Band& band : bands.bands) {
    band.offset = plane_floats;
    band.first_row = plane_rows;
    plane_rows += band.rows(output.tile_rows);
    plane_floats += RoundUp(band.rows(output.tile_rows) * staging->row_lanes, alignment);
  }

  std::vector<AxisTap> planes;
  std::vector<int64_t> plane_of_column;
  for (const AxisTap& tap : columns) {
    const AxisTap plane{0, staging->wide_rows ? -1 : staging->column_shift ? 0 : tap.shift, tap.residue};
    auto found = std::find_if(planes.begin(), planes.end(), [&](const AxisTap& p) {
      return p.shift == plane.shift && p.residue == plane.residue;
    });
    if (found == planes.end()) found = planes.insert(planes.end(), plane);
    plane_of_column.push_back(found - planes.begin());
  }
  // At least something, where all taps read padding.
  staging->channel_floats = std::max(plane_floats * static_cast<int64_t>(planes.size()), alignment);
  if (staging->channel_floats > most_floats) {
    return Status::Problem("convolution: one channel of a tile takes more than 256 KiB for so large a kernel");
  }
  const int64_t staged_rows = plane_rows * static_cast<int64_t>(planes.size());
  if (const Status status = CheckCopies(shape, input, output, staged_rows, staging->row_lanes); !status.ok()) {
    return status;
  }

  staging->taps.resize(static_cast<size_t>(shape.taps()));
  for (size_t kh = 0; kh < rows.size(); ++kh) {
    const Band& band = bands.of(kh);
    const int64_t row_offset = band.offset + (rows[kh].shift - band.first_shift) * staging->row_lanes;
    for (size_t kw = 0; kw < columns.size(); ++kw) {
      const int shift = staging->column_shift ? static_cast<int>(columns[kw].shift) : 0;
      StagedTap& tap =
          staging->taps[static_cast<size_t>(rows[kh].position * shape.kernel_width + columns[kw].position)];
      tap.offset = plane_of_column[kw] * plane_floats + row_offset;
      tap.column_shift = staging->wide_rows ? -shift : shift;
    }
  }

  const TapWindows windows = MakeTapWindows(row_axis, rows, column_axis, columns, output);
  staging->window_of_tile = windows.of_tile;
  for (const TapWindow& window : windows.windows) {
    std::vector<bool> needed(static_cast<size_t>(shape.taps()), false);
    for (int64_t kh = window.rows.first; kh < window.rows.last; ++kh) {
      for (int64_t kw = window.columns.first; kw < window.columns.last; ++kw) {
        needed[static_cast<size_t>(rows[static_cast<size_t>(kh)].position * shape.kernel_width +
                                   columns[static_cast<size_t>(kw)].position)] = true;
      }
    }
    staging->windows.push_back(std::move(needed));
  }

  const bool whole_segments = staging->wide_rows && StagesWholeSegments(shape, input, output);
  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    const TapWindow& window = windows.windows[static_cast<size_t>(windows.of_tile[static_cast<size_t>(index)])];
    const std::vector<bool> read = RowsRead(rows, bands, window.rows, output.tile_rows, tile.rows);
    if (whole_segments) {
      staging->rows.push_back(WideTileRows(shape, input, tile, bands, read, staging->row_lanes));
      continue;
    }
    std::vector<bool> plane_read(planes.size(), false);
    for (int64_t kw = window.columns.first; kw < window.columns.last; ++kw) {
      plane_read[static_cast<size_t>(plane_of_column[static_cast<size_t>(kw)])] = true;
    }
    CopyList copies(input, shape);
    for (size_t plane = 0; plane < planes.size(); ++plane) {
      if (!plane_read[plane]) continue;
      for (const Band& band : bands.bands) {
        for (int64_t row = 0; row < band.rows(tile.rows); ++row) {
          if (!read[static_cast<size_t>(band.first_row + row)]) continue;
          copies.AddRow((tile.row + band.first_shift + row) * shape.stride_height + band.residue,
                        tile.column + planes[plane].shift, planes[plane].residue, staging->row_lanes,
                        static_cast<int64_t>(plane) * plane_floats + band.offset + row * staging->row_lanes);
        }
      }
    }
    staging->copies.push_back(copies.Take());
  }
  return Status::Ok();
}

std::vector<StageVector> VectorsOf(const std::vector<StageCopy>& copies, int64_t channel_floats, int64_t stride) {
  constexpr int64_t kVector = 16;
  constexpr int64_t kNone = std::numeric_limits<int64_t>::min();
  // Of each lane, where a pixel would be that the first lane of its vector had in the same run.
  std::vector<int64_t> run(static_cast<size_t>(channel_floats), kNone);
  std::vector<bool> staged(static_cast<size_t>(channel_floats / kVector), false);
  for (const StageCopy& copy : copies) {
    const int64_t first = copy.target + copy.zeros_left, end = first + copy.count + copy.zeros_right;
    for (int64_t lane = copy.target; lane < end; ++lane) staged[static_cast<size_t>(lane / kVector)] = true;
    for (int64_t i = 0; copy.source >= 0 && i < copy.count; ++i) {
      run[static_cast<size_t>(first + i)] = copy.source + (i - (first + i) % kVector) * stride;
    }
  }
  std::vector<StageVector> vectors;
  for (int64_t target = 0; target < channel_floats; target += kVector) {
    if (!staged[static_cast<size_t>(target / kVector)]) continue;
    const size_t first = vectors.size();
    for (int64_t lane = 0; lane < kVector; ++lane) {
      const int64_t source = run[static_cast<size_t>(target + lane)];
      if (source == kNone) continue;
      const auto same = std::find_if(vectors.begin() + static_cast<int64_t>(first), vectors.end(),
                                     [&](const StageVector& vector) { return vector.source == source; });
      const uint16_t bit = static_cast<uint16_t>(1u << lane);
      if (same != vectors.end()) {
        same->lanes = static_cast<uint16_t>(same->lanes | bit);
      } else {
        vectors.push_back({source, static_cast<int32_t>(target), bit, vectors.size() == first});
      }
    }
    if (vectors.size() == first) vectors.push_back({0, static_cast<int32_t>(target), 0, true});
  }
  return vectors;
}

Status MakeHaloStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                       int64_t most_floats, bool all_taps, HaloStaging* staging) {
  const Axis row_axis = RowAxis(shape, input, output);
  const Axis column_axis = ColumnAxis(shape, input, output);
  const std::vector<AxisTap> rows = LiveTaps(row_axis);
  const std::vector<AxisTap> columns = LiveTaps(column_axis);
  Bands bands = MakeBands(rows, output.tile_rows, 1);
  // Planes are to columns what bands are to rows; their staged rows hold every pixel that any of the columns looks at.
  Bands planes = MakeBands(columns, output.tile_columns, 1);

  *staging = HaloStaging();
  staging->row_floats = output.tile_columns;
  for (const Band& plane : planes.bands) {
    staging->row_floats = std::max(staging->row_floats, plane.rows(output.tile_columns));
  }
  int64_t plane_rows = 0;
  for (Band& band : bands.bands) {
    band.first_row = plane_rows;
    band.offset = plane_rows * staging->row_floats;
    plane_rows += band.rows(output.tile_rows);
  }
  const int64_t plane_floats = plane_rows * staging->row_floats;
  for (size_t plane = 0; plane < planes.bands.size(); ++plane) {
    planes.bands[plane].offset = static_cast<int64_t>(plane) * plane_floats;
  }
  const int64_t count = static_cast<int64_t>(planes.bands.size());
  if (plane_floats > most_floats / std::max<int64_t>(count, 1)) {
    return Status::Problem("depthwise convolution: one channel of a tile takes more than 4 MiB for so large a kernel");
  }
  staging->channel_floats = plane_floats * count;
  if (const Status status = CheckCopies(shape, input, output, plane_rows * count, staging->row_floats); !status.ok()) {
    return status;
  }

  for (size_t kh = 0; kh < rows.size(); ++kh) {
    const Band& band = bands.of(kh);
    for (size_t kw = 0; kw < columns.size(); ++kw) {
      const Band& plane = planes.of(kw);
      staging->taps.push_back({rows[kh].position * shape.kernel_width + columns[kw].position,
                               plane.offset + band.offset + (rows[kh].shift - band.first_shift) * staging->row_floats +
                                   columns[kw].shift - plane.first_shift});
    }
  }

  const int64_t row_taps = static_cast<int64_t>(columns.size());
  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    const Range all{0, static_cast<int64_t>(rows.size())};
    const Range live = all_taps ? all : LiveRange(row_axis, rows, tile.row, tile.row + tile.rows);
    staging->of_tile.push_back({live.first * row_taps, live.last * row_taps});
    const std::vector<bool> read = RowsRead(rows, bands, live, output.tile_rows, tile.rows);
    CopyList copies(input, shape);
    for (const Band& plane : planes.bands) {
      for (const Band& band : bands.bands) {
        for (int64_t row = 0; row < band.rows(tile.rows); ++row) {
          if (!read[static_cast<size_t>(band.first_row + row)]) continue;
          copies.AddRow((tile.row + band.first_shift + row) * shape.stride_height + band.residue,
                        tile.column + plane.first_shift, plane.residue, staging->row_floats,
                        plane.offset + band.offset + row * staging->row_floats);
        }
      }
    }
    staging->copies.push_back(copies.Take());
  }
  return Status::Ok();
}

}  // namespace gossamer
