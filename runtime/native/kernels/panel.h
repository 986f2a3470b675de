// Where the activations of a sparse network lie in memory.
//
// An image is cut into tiles of whole rows (of row segments where a row is long); a tile holds its pixels channel by
// channel:  [image][tile][channel][pitch],  pitch >= pixels of a tile. One row of a tile is what the accumulators of a
// kernel hold in registers: 112 pixels are 7 AVX-512 registers, 14 AVX2 registers, 28 NEON registers.
//
// The layout depends on the image's height and width and on the session's number of threads only, never on the processor,
// so that tensors can pass between the ops of a session, be compared and be written by any of the kernels.
#ifndef GOSSAMER_KERNELS_PANEL_H_
#define GOSSAMER_KERNELS_PANEL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/status.h"
#include "kernels/share.h"

namespace gossamer {

// Pixels of a tile at most. 2 rows of 56, 4 of 28, 8 of 14, all 49 of 7 x 7: each at most 112.
inline constexpr int64_t kTilePixels = 112;
// Kernels compute a multiple of 4 pixels, the smallest vector; the pixels between are zeros or leftovers, never read
// as part of an image.
inline constexpr int64_t kPixelQuantum = 4;

// Rectangle of an image.
struct Tile {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t column = 0;
  int64_t columns = 0;

  int64_t pixels() const { return rows * columns; }
};

// How the work on an image is dealt to the threads.
enum class Dealing {
  kTiles,     // consecutive whole tiles: what a thread wrote it then reads again in the next layer
  kParts,     // consecutive parts of tiles, each a slice of the channels: most tiles are still whole
  kChannels,  // slices of the channels, each with all tiles
};

struct PanelLayout {
  int64_t height = 0;
  int64_t width = 0;
  int64_t tile_rows = 0;     // of every tile but perhaps the last ones
  int64_t tile_columns = 0;  // likewise
  int64_t bands = 0;         // tiles below one another
  int64_t segments = 0;      // tiles beside one another
  int64_t pitch = 0;         // floats from one channel of a tile to the next
  int64_t room = 0;          // floats that a tensor has for a channel of an image, at least tiles() * pitch
  Dealing dealing = Dealing::kTiles;

  int64_t tiles() const { return bands * segments; }
  Tile tile(int64_t index) const;
  // The tile of a pixel, and the pixel's place in a channel row of that tile.
  int64_t tile_of(int64_t row, int64_t column) const {
    return row / tile_rows * segments + column / tile_columns;
  }
  int64_t offset_in_tile(int64_t row, int64_t column) const;

  // Floats of an image.
  int64_t image_floats(int64_t channels) const { return tiles() * channels * pitch; }
  // ONNX Runtime's tensors have a shape and no room beside it. A panel tensor is therefore declared as
  // [images, storage_channels, height, width], with enough to hold at least one more. Every number of channels has another
  // one, so that a reader can check how many were written; and because of the one more, tensors that were joined along
  // this axis are never taken for panels of the sum of their channels.
  int64_t storage_channels(int64_t channels) const;
  // The channels of such a tensor, 0 if it has those of none.
  int64_t channels_of(int64_t storage) const;
  // Images of a multiple of so many channels, 16 at most, begin on a cache line.
  int64_t storage_step() const;
  // Floats from one image of such a tensor to the next.
  int64_t image_stride(int64_t channels) const { return storage_channels(channels) * height * width; }
};

// Of each row's segments, [row][segment]: where in the panel of an image of so many channels they begin, in the first one.
std::vector<int64_t> SegmentPlaces(const PanelLayout& layout, int64_t channels);

// Whether an image is one of the sizes that panels are made for (limits.h).
Status CheckPanelSize(int64_t channels, int64_t height, int64_t width);

// Needs CheckPanelSize to have passed. storage_channels is the same for every number of threads, which shape inference
// does not know.
PanelLayout MakePanelLayout(int64_t height, int64_t width, int64_t threads = 1);

// Between [channels][height][width] and the panel of one image: some of its tiles, some of their channels.
void PanelFromPlanar(const PanelLayout& layout, int64_t channels, const float* planar, Range tiles, Range of_channels,
                     float* panel);
void PlanarFromPanel(const PanelLayout& layout, int64_t channels, const float* panel, Range tiles, Range of_channels,
                     float* planar);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_PANEL_H_
