// How the tokens of a matrix product are cut into tiles.
#ifndef GOSSAMER_KERNELS_TOKEN_TILES_H_
#define GOSSAMER_KERNELS_TOKEN_TILES_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/machine.h"
#include "kernels/panel.h"
#include "kernels/product_plan.h"

namespace gossamer {

// Tokens of a tile at most: 4 rows of 64 fill the registers of AVX-512, 2 of 56 those of AVX2 and NEON. Of halves a row is by
// itself.
inline int64_t TokenTile(const KernelTraits& traits) {
  const int64_t rows = traits.accumulators < 2 ? 0 : traits.vector_lanes >= 16 ? 4 : 2;
  const int64_t lanes =
      rows == 0 ? traits.row_lanes() : std::min(traits.accumulators / rows * traits.vector_lanes, traits.row_lanes());
  return lanes / kPixelQuantum * kPixelQuantum;
}

// Tiles that so many tokens are cut into.
inline int64_t TokenTiles(int64_t tokens, int64_t tile) { return (tokens + tile - 1) / tile; }

// Tokens from one tile to the next: about the same number for all, whole vectors but for the last.
inline int64_t TokenStep(int64_t tokens, int64_t tile, int64_t vector_lanes) {
  const int64_t quantum = std::max(vector_lanes, kPixelQuantum);
  const int64_t tiles = TokenTiles(tokens, tile);
  return ((tokens + tiles - 1) / tiles + quantum - 1) / quantum * quantum;
}

// The first row of each slice, and the end. A slice without rows begins where the next one does.
std::vector<int64_t> FirstRows(const ProductPlan& product);

// Input channels of the largest block.
int64_t BlockChannels(const ProductPlan& product);

// Calls run(token, first slice, last slice) for items [first, last) of (tile of tokens, slice), slices innermost.
template <class Run>
void ForEachTokenTile(int64_t tokens, int64_t step, int64_t slices, int64_t first, int64_t last, const Run& run) {
  for (int64_t item = first; item < last;) {
    const int64_t slice = item % slices;
    const int64_t end = std::min(slices, slice + last - item);
    const int64_t token = item / slices * step;
    if (token < tokens) run(token, static_cast<size_t>(slice), static_cast<size_t>(end));
    item += end - slice;
  }
}

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_TOKEN_TILES_H_
