#include "kernels/staging.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/limits.h"

namespace gossamer {
namespace {

constexpr int64_t kBandAlignment = 8;  // floats

int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Kernel position k reads input pixel  stride * (x + shift) + residue  for output pixel x.
struct AxisTap {
  int64_t shift;
  int64_t residue;
};

std::vector<AxisTap> AxisTaps(int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  std::vector<AxisTap> taps;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t position = k * dilation - pad;
    const int64_t shift = FloorDivide(position, stride);
    taps.push_back({shift, position - shift * stride});
  }
  return taps;
}

// Staged rows of one residue: rows first_shift .. first_shift + rows - 1, counted from the tile's first row.
struct Band {
  int64_t residue;
  int64_t first_shift;
  int64_t last_shift;
  int64_t parity;  // of the shifts that it serves; -1: both
  int64_t offset = 0;

  bool Serves(const AxisTap& tap) const {
    return tap.residue == residue && (parity < 0 || (tap.shift & 1) == parity);
  }
};

std::vector<Band> MakeBands(const std::vector<AxisTap>& rows, bool split_by_parity) {
  std::vector<Band> bands;
  for (const AxisTap& tap : rows) {
    auto band = std::find_if(bands.begin(), bands.end(), [&](const Band& b) { return b.Serves(tap); });
    if (band == bands.end()) {
      bands.push_back({tap.residue, tap.shift, tap.shift, split_by_parity ? tap.shift & 1 : -1});
    } else {
      band->first_shift = std::min(band->first_shift, tap.shift);
      band->last_shift = std::max(band->last_shift, tap.shift);
    }
  }
  return bands;
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

int64_t ChooseRowLanes(const ConvolutionShape& shape, const PanelLayout& output) {
  if (shape.kernel_height == 1) return output.tile_columns;
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
                                   const std::vector<Band>& bands, int64_t row_lanes) {
  const auto place = [&](int64_t row, int64_t column) -> int64_t {
    if (row < 0 || row >= input.height || column < 0 || column >= input.width) return -1;
    return input.tile_of(row, column) * shape.input_channels * input.pitch + input.offset_in_tile(row, column);
  };
  std::vector<StageRow> rows;
  for (const Band& band : bands) {
    for (int64_t r = 0; r < tile.rows + band.last_shift - band.first_shift; ++r) {
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
                   const KernelTraits& traits, bool may_shift, int64_t most_floats, Staging* staging) {
  *staging = Staging();
  const std::vector<AxisTap> rows = AxisTaps(shape.kernel_height, shape.stride_height, shape.dilation_height,
                                             shape.pad_top);
  const std::vector<AxisTap> columns = AxisTaps(shape.kernel_width, shape.stride_width, shape.dilation_width,
                                                shape.pad_left);
  staging->row_lanes = ChooseRowLanes(shape, output);
  staging->wide_rows = may_shift && CanShiftWideRows(columns, output);
  // Whole cache lines: the loads of every other kernel row would cross two of them otherwise.
  if (staging->wide_rows) staging->row_lanes = RoundUp(output.tile_columns + 2, 16);
  staging->column_shift = staging->wide_rows || (may_shift && CanShiftColumns(columns, shape, input, output,
                                                                            staging->row_lanes, traits));

  const int64_t alignment = std::min<int64_t>(8, traits.vector_lanes);
  std::vector<Band> bands = MakeBands(rows, staging->row_lanes % alignment != 0 && shape.kernel_height > 1);
  int64_t plane_floats = 0;
  int64_t plane_rows = 0;
  for (Band& band : bands) {
    band.offset = plane_floats;
    const int64_t band_rows = output.tile_rows + band.last_shift - band.first_shift;
    plane_rows += band_rows;
    plane_floats += RoundUp(band_rows * staging->row_lanes, kBandAlignment);
  }

  std::vector<AxisTap> planes;
  std::vector<int64_t> plane_of_column;
  for (const AxisTap& tap : columns) {
    const AxisTap plane{staging->wide_rows ? -1 : staging->column_shift ? 0 : tap.shift, tap.residue};
    auto found = std::find_if(planes.begin(), planes.end(), [&](const AxisTap& p) {
      return p.shift == plane.shift && p.residue == plane.residue;
    });
    if (found == planes.end()) found = planes.insert(planes.end(), plane);
    plane_of_column.push_back(found - planes.begin());
  }
  staging->channel_floats = plane_floats * static_cast<int64_t>(planes.size());
  if (staging->channel_floats > most_floats) {
    return Status::Problem("convolution: one channel of a tile takes more than 256 KiB for so large a kernel");
  }
  const int64_t staged_rows = plane_rows * static_cast<int64_t>(planes.size());
  if (const Status status = CheckCopies(shape, input, output, staged_rows, staging->row_lanes); !status.ok()) {
    return status;
  }

  for (const AxisTap& row : rows) {
    const Band& band = *std::find_if(bands.begin(), bands.end(), [&](const Band& b) { return b.Serves(row); });
    const int64_t row_offset = band.offset + (row.shift - band.first_shift) * staging->row_lanes;
    for (size_t kw = 0; kw < columns.size(); ++kw) {
      const int shift = staging->column_shift ? static_cast<int>(columns[kw].shift) : 0;
      staging->taps.push_back({plane_of_column[kw] * plane_floats + row_offset, staging->wide_rows ? -shift : shift});
    }
  }

  if (staging->wide_rows && StagesWholeSegments(shape, input, output)) {
    for (int64_t index = 0; index < output.tiles(); ++index) {
      staging->rows.push_back(WideTileRows(shape, input, output.tile(index), bands, staging->row_lanes));
    }
    return Status::Ok();
  }
  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    CopyList copies(input, shape);
    for (size_t plane = 0; plane < planes.size(); ++plane) {
      for (const Band& band : bands) {
        for (int64_t row = 0; row < tile.rows + band.last_shift - band.first_shift; ++row) {
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

double StagedHaloFloats(const ConvolutionShape& shape, const PanelLayout& output) {
  // Rows and columns that a kernel of `extent` positions looks at for `outputs` of them, over all residues together.
  const auto staged = [](int64_t outputs, int64_t extent, int64_t stride, int64_t dilation) {
    const double reach = static_cast<double>(dilation) * static_cast<double>(extent - 1) / static_cast<double>(stride);
    const double residues = static_cast<double>(std::min(extent, stride / std::gcd(stride, dilation)));
    return (static_cast<double>(outputs) + reach) * residues;
  };
  return staged(output.tile_rows, shape.kernel_height, shape.stride_height, shape.dilation_height) *
         staged(output.tile_columns, shape.kernel_width, shape.stride_width, shape.dilation_width);
}

Status MakeHaloStaging(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output,
                       HaloStaging* staging) {
  const std::vector<AxisTap> rows = AxisTaps(shape.kernel_height, shape.stride_height, shape.dilation_height,
                                             shape.pad_top);
  const std::vector<AxisTap> columns = AxisTaps(shape.kernel_width, shape.stride_width, shape.dilation_width,
                                                shape.pad_left);
  std::vector<Band> bands = MakeBands(rows, false);
  // Planes are to columns what bands are to rows.
  std::vector<Band> planes = MakeBands(columns, false);

  *staging = HaloStaging();
  for (const Band& plane : planes) {
    staging->row_floats = std::max(staging->row_floats, output.tile_columns + plane.last_shift - plane.first_shift);
  }
  int64_t plane_floats = 0;
  int64_t plane_rows = 0;
  for (Band& band : bands) {
    band.offset = plane_floats;
    const int64_t band_rows = output.tile_rows + band.last_shift - band.first_shift;
    plane_rows += band_rows;
    plane_floats += band_rows * staging->row_floats;
  }
  for (size_t plane = 0; plane < planes.size(); ++plane) {
    planes[plane].offset = static_cast<int64_t>(plane) * plane_floats;
  }
  staging->channel_floats = plane_floats * static_cast<int64_t>(planes.size());
  const int64_t staged_rows = plane_rows * static_cast<int64_t>(planes.size());
  if (const Status status = CheckCopies(shape, input, output, staged_rows, staging->row_floats); !status.ok()) {
    return status;
  }

  for (const AxisTap& row : rows) {
    const Band& band = *std::find_if(bands.begin(), bands.end(), [&](const Band& b) { return b.Serves(row); });
    for (const AxisTap& column : columns) {
      const Band& plane = *std::find_if(planes.begin(), planes.end(), [&](const Band& b) { return b.Serves(column); });
      staging->tap_offsets.push_back(plane.offset + band.offset + (row.shift - band.first_shift) * staging->row_floats +
                                    column.shift - plane.first_shift);
    }
  }

  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    CopyList copies(input, shape);
    for (const Band& plane : planes) {
      for (const Band& band : bands) {
        for (int64_t row = 0; row < tile.rows + band.last_shift - band.first_shift; ++row) {
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
