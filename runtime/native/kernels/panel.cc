#include "kernels/panel.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/limits.h"

namespace gossamer {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }

// Time of one kernel call on `pixels`, in AVX-512 multiply-adds a nonzero: a register counts 1, a last one of 4 or 8
// lanes half (Zen 4 runs 512 bits as two halves), and a row costs about 1.5 for its part of the stream and the loop.
double KernelCost(int64_t pixels) {
  const int64_t rest = RoundUp(pixels % 16, kPixelQuantum);
  return static_cast<double>(pixels / 16) + (rest == 0 ? 0.0 : rest <= 8 ? 0.5 : 1.0) + 1.5;
}

// Rows a tile: 8 + 6 rows rather than 7 + 7 at 14 x 14 (12.5 against 13 by the above).
int64_t ChooseTileRows(int64_t height, int64_t columns) {
  const int64_t most = std::clamp<int64_t>(kTilePixels / columns, 1, height);
  int64_t best = most;
  double best_cost = 0.0;
  for (int64_t rows = most; rows >= 1; --rows) {
    const int64_t rest = height % rows;
    const double cost = static_cast<double>(height / rows) * KernelCost(rows * columns) +
                        (rest == 0 ? 0.0 : KernelCost(rest * columns));
    if (rows == most || cost < best_cost) {
      best = rows;
      best_cost = cost;
    }
  }
  return best;
}

PanelLayout WithTileRows(PanelLayout layout, int64_t rows) {
  layout.tile_rows = rows;
  layout.bands = DivideUp(layout.height, rows);
  // A multiple of 8 floats: every vector of a row then crosses at most every other cache line.
  layout.pitch = RoundUp(rows * layout.tile_columns, 8);
  return layout;
}

// Times of a layer whose tiles are dealt out whole, each thread taking consecutive ones: of all, and of the last to end.
struct Shares {
  double all = 0.0;
  double largest = 0.0;
};

Shares DealWhole(const PanelLayout& layout, int64_t threads) {
  Shares shares;
  for (int64_t thread = 0; thread < threads; ++thread) {
    double share = 0.0;
    const Range tiles = ShareOf(layout.tiles(), threads, thread);
    for (int64_t index = tiles.first; index < tiles.last; ++index) {
      share += KernelCost(layout.tile(index).pixels());
    }
    shares.all += share;
    shares.largest = std::max(shares.largest, share);
  }
  return shares;
}

// So many tiles a thread are dealt out whole without further ado: one more is at most an eighth.
constexpr int64_t kManyTiles = 8;
// So few tiles a thread are not dealt out in parts: all threads would read most of the weights.
constexpr int64_t kFewTiles = 2;
// How much longer than an even share a thread may take. Dealing out channels instead makes every thread read what the
// others wrote, a third of the time of ResNet-50's layers at 14 x 14 and 95% zeros.
constexpr double kEven = 1.08;

// A layout for several threads from the one for one: 7 + 7 rows for two rather than 8 + 6 at 14 x 14.
PanelLayout ForThreads(const PanelLayout& single, int64_t threads) {
  if (single.tiles() >= kManyTiles * threads) return single;
  const Shares shares = DealWhole(single, threads);
  const double most = kEven * shares.all / static_cast<double>(threads);
  if (shares.largest <= most) return single;
  for (int64_t bands = single.bands; bands <= std::min(single.height, kManyTiles * threads); ++bands) {
    if (bands * single.segments % threads != 0) continue;
    const PanelLayout layout = WithTileRows(single, DivideUp(single.height, bands));
    if (layout.tiles() * layout.pitch <= single.room && DealWhole(layout, threads).largest <= most) return layout;
  }
  PanelLayout uneven = single;
  uneven.dealing = single.tiles() <= kFewTiles * threads ? Dealing::kChannels : Dealing::kParts;
  return uneven;
}

// The layout of an image that is turned by a quarter.
PanelLayout Turned(PanelLayout layout) {
  std::swap(layout.height, layout.width);
  std::swap(layout.tile_rows, layout.tile_columns);
  std::swap(layout.bands, layout.segments);
  return layout;
}

template <class Copy>
void ForEachTileRow(const PanelLayout& layout, int64_t channels, Range tiles, Range of_channels, const Copy& copy) {
  for (int64_t index = tiles.first; index < tiles.last; ++index) {
    const Tile tile = layout.tile(index);
    for (int64_t channel = of_channels.first; channel < of_channels.last; ++channel) {
      const int64_t panel = (index * channels + channel) * layout.pitch;
      const int64_t planar = (channel * layout.height + tile.row) * layout.width + tile.column;
      if (tile.columns == layout.width) {
        copy(panel, planar, tile.pixels());
        continue;
      }
      for (int64_t row = 0; row < tile.rows; ++row) {
        copy(panel + row * tile.columns, planar + row * layout.width, tile.columns);
      }
    }
  }
}

}  // namespace

Tile PanelLayout::tile(int64_t index) const {
  Tile tile;
  tile.row = index / segments * tile_rows;
  tile.rows = std::min(tile_rows, height - tile.row);
  tile.column = index % segments * tile_columns;
  tile.columns = std::min(tile_columns, width - tile.column);
  return tile;
}

// Images begin on a cache line (16 floats) if the stride is a multiple of 16, and so it is for a multiple of so many storage
// channels. All storage channels must tell the channels, and only some are such multiples: those of as many channels.
int64_t PanelLayout::storage_step() const {
  const int64_t pixels = height * width;
  return 16 / std::min<int64_t>(16, pixels & -pixels);
}

// Strictly ascending, for the room of a channel is at least its pixels: enough for the next whole step and rounded up to
// one, which rises by a step at least, and those beyond the last whole one.
int64_t PanelLayout::storage_channels(int64_t channels) const {
  const int64_t step = storage_step();
  const int64_t whole = RoundUp(DivideUp(room * step * (channels / step + 1), height * width), step);
  return whole + channels % step;
}

int64_t PanelLayout::channels_of(int64_t storage) const {
  const int64_t step = storage_step();
  const int64_t channels = (storage / step * height * width / room - 1) * step + storage % step;
  return channels >= 1 && storage_channels(channels) == storage ? channels : 0;
}

int64_t PanelLayout::offset_in_tile(int64_t row, int64_t column) const {
  const int64_t columns = std::min(tile_columns, width - column / tile_columns * tile_columns);
  return row % tile_rows * columns + column % tile_columns;
}

std::vector<int64_t> SegmentPlaces(const PanelLayout& layout, int64_t channels) {
  std::vector<int64_t> places;
  places.reserve(static_cast<size_t>(layout.height * layout.segments));
  for (int64_t row = 0; row < layout.height; ++row) {
    for (int64_t segment = 0; segment < layout.segments; ++segment) {
      const int64_t column = segment * layout.tile_columns;
      places.push_back(layout.tile_of(row, column) * channels * layout.pitch + layout.offset_in_tile(row, column));
    }
  }
  return places;
}

Status CheckPanelSize(int64_t channels, int64_t height, int64_t width) {
  for (const int64_t extent : {channels, height, width}) {
    if (extent < 1 || extent > kMaximumExtent) {
      return Status::Problem("channels, height and width of an image must be within 1 and 2^24");
    }
  }
  // At most 2^24 each, so neither product can overflow.
  if (height * width > kMaximumPixels) return Status::Problem("the image is too large: more than 2^26 pixels");
  if (channels > kMaximumImageFloats / (height * width)) {
    return Status::Problem("the image is too large: more than 2^32 numbers");
  }
  return Status::Ok();
}

PanelLayout MakePanelLayout(int64_t height, int64_t width, int64_t threads) {
  // A column lies as a row does, so that a convolution along it is one along a row.
  if (width == 1 && height > 1) return Turned(MakePanelLayout(1, height, threads));
  PanelLayout layout;
  layout.height = height;
  layout.width = width;
  layout.segments = DivideUp(width, kTilePixels);
  layout.tile_columns = layout.segments == 1 ? width : RoundUp(DivideUp(width, layout.segments), kPixelQuantum);
  layout.segments = DivideUp(width, layout.tile_columns);
  layout = WithTileRows(layout, ChooseTileRows(height, layout.tile_columns));
  layout.room = layout.tiles() * layout.pitch;
  return threads > 1 ? ForThreads(layout, threads) : layout;
}

void PanelFromPlanar(const PanelLayout& layout, int64_t channels, const float* planar, Range tiles, Range of_channels,
                     float* panel) {
  ForEachTileRow(layout, channels, tiles, of_channels, [&](int64_t to, int64_t from, int64_t count) {
    std::memcpy(panel + to, planar + from, static_cast<size_t>(count) * sizeof(float));
  });
  // What lies between the pixels and the next channel takes part in the arithmetic: as zeros it stays harmless, while
  // leftovers of memory may be denormal numbers, which are slow.
  for (int64_t index = tiles.first; index < tiles.last; ++index) {
    const int64_t pixels = layout.tile(index).pixels();
    for (int64_t channel = of_channels.first; channel < of_channels.last; ++channel) {
      float* row = panel + (index * channels + channel) * layout.pitch;
      std::fill(row + pixels, row + layout.pitch, 0.0f);
    }
  }
}

void PlanarFromPanel(const PanelLayout& layout, int64_t channels, const float* panel, Range tiles, Range of_channels,
                     float* planar) {
  ForEachTileRow(layout, channels, tiles, of_channels, [&](int64_t from, int64_t to, int64_t count) {
    std::memcpy(planar + to, panel + from, static_cast<size_t>(count) * sizeof(float));
  });
}

}  // namespace gossamer
