// Times layers of bytes.
#ifndef GOSSAMER_BENCH_QUANTISED_LAYERS_H_
#define GOSSAMER_BENCH_QUANTISED_LAYERS_H_

#include "bench/shapes.h"
#include "bench/timing.h"

namespace gossamer {

// Returns false, having said why, if the layer cannot be planned. timing->multiply_adds are those of nonzero weights,
// timing->padding what else of the stream is computed: zeros of kept quads and of longer rows.
bool TimeQuantised(const LayerShape& layer, const Options& options, Timing* timing);

}  // namespace gossamer

#endif  // GOSSAMER_BENCH_QUANTISED_LAYERS_H_
