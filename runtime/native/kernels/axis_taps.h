// What a kernel reads along one axis of an image: rows or columns.
#ifndef GOSSAMER_KERNELS_AXIS_TAPS_H_
#define GOSSAMER_KERNELS_AXIS_TAPS_H_

#include <cstdint>
#include <vector>

#include "kernels/product_plan.h"
#include "kernels/share.h"

namespace gossamer {

inline int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

struct Axis {
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t pad;  // before the first pixel
  int64_t inputs;
  int64_t outputs;
};

Axis RowAxis(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output);
Axis ColumnAxis(const ConvolutionShape& shape, const PanelLayout& input, const PanelLayout& output);

// Kernel position `position` reads input pixel  stride * (x + shift) + residue  for output pixel x.
struct AxisTap {
  int64_t position;
  int64_t shift;
  int64_t residue;
};

// The positions that read a pixel of the image for any output, in ascending order; the others read only padding.
std::vector<AxisTap> LiveTaps(const Axis& axis);

// Which of `taps` read a pixel of the image for the outputs [first, last): from the first such tap to the last one.
Range LiveRange(const Axis& axis, const std::vector<AxisTap>& taps, int64_t first, int64_t last);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_AXIS_TAPS_H_
