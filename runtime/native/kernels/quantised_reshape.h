// Concatenation along channels and resizing, on panels of bytes, between ops whose inputs and outputs have scales of their
// own: what a value of one becomes as a value of the other is a table.
#ifndef GOSSAMER_KERNELS_QUANTISED_RESHAPE_H_
#define GOSSAMER_KERNELS_QUANTISED_RESHAPE_H_

#include <cstdint>
#include <vector>

#include "kernels/panel.h"
#include "kernels/quantised_panel.h"
#include "kernels/share.h"

namespace gossamer {

// The table from values of one quantisation to those of another: round((value - zero point) * (scale / other scale)) + other
// zero point, ties to even, within 0 and 255.
std::vector<uint8_t> RescalingTable(const Quantisation& from, const Quantisation& to);

// One input of a concatenation.
struct ConcatInput {
  int64_t channels = 0;
  int64_t first_channel = 0;     // of the output
  std::vector<PanelByte> table;  // PanelTable of a RescalingTable; empty: values stay as they are
};

// Writes the channels of one input into the panel of an image of `output_channels`, for some of its tiles. Channels that
// fill up the output's last lane stay as they are: they must hold something.
void CopyChannels(const PanelLayout& layout, const ConcatInput& input, int64_t output_channels, const int32_t* from,
                  Range tiles, int32_t* to);

// Nearest neighbours: pixel (y, x) of the output is pixel (y / rows, x / columns) of the input, for some lanes of an image.
void RepeatPixels(const PanelLayout& input, const PanelLayout& output, int64_t rows, int64_t columns, int64_t quads,
                  const int32_t* from, Range of_quads, int32_t* to);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_RESHAPE_H_
