// Which taps of a kernel a tile needs: those that read nothing but padding for all of its pixels need neither be staged
// nor multiplied. Of 3x3 at a dilation of 18 on 33 x 33 pixels, every tile needs two of the three rows at most.
#ifndef GOSSAMER_KERNELS_TAP_WINDOWS_H_
#define GOSSAMER_KERNELS_TAP_WINDOWS_H_

#include <cstdint>
#include <vector>

#include "kernels/axis_taps.h"

namespace gossamer {

// Indices of the live taps of both axes that are needed.
struct TapWindow {
  Range rows;
  Range columns;

  int64_t taps() const { return (rows.last - rows.first) * (columns.last - columns.first); }
};

struct TapWindows {
  std::vector<TapWindow> windows;  // each with a stream of nonzeros of its own
  std::vector<int32_t> of_tile;
};

// One window for all tiles where several would save less than an eighth of the work, and never so many that the streams
// together take more than four times as much as one of all taps.
TapWindows MakeTapWindows(const Axis& row_axis, const std::vector<AxisTap>& rows, const Axis& column_axis,
                          const std::vector<AxisTap>& columns, const PanelLayout& output);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_TAP_WINDOWS_H_
