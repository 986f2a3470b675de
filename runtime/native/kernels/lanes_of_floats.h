// Floats of an image to lanes of a panel of bytes.
#ifndef GOSSAMER_KERNELS_LANES_OF_FLOATS_H_
#define GOSSAMER_KERNELS_LANES_OF_FLOATS_H_

#include <array>
#include <cstdint>

#include "kernels/quantised_panel.h"

namespace gossamer {

// Four channels of an image from one of its pixels on; null where there is no such channel.
using FloatPlanes = std::array<const float*, kQuad>;

// Lane i is Quantised(q, plane[i]) of each plane, the zero point where there is none, for all i < count.
void LanesOfFloats(const FloatPlanes& planes, const Quantisation& q, int64_t count, int32_t* lanes);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_LANES_OF_FLOATS_H_
