// Sums of the bytes of lanes of a panel.
#ifndef GOSSAMER_KERNELS_LANE_SUMS_H_
#define GOSSAMER_KERNELS_LANE_SUMS_H_

#include <cstdint>

#include "kernels/quantised_panel.h"

namespace gossamer {

// Of the four channels of a lane, as values (ValueOf).
struct LaneSums {
  int32_t of[kQuad] = {};

  // Adds `count` lanes that lie side by side.
  void Add(const PanelByte* lanes, int64_t count);
};

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_LANE_SUMS_H_
