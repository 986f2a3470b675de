#include "kernels/quantised_panel.h"

#include <algorithm>

#include "kernels/lanes_of_floats.h"

namespace gossamer {
namespace {

// Calls copy(lane in the panel, pixel in a plane, pixels) for each run of pixels that lie side by side in both.
template <class Copy>
void ForEachRun(const PanelLayout& layout, int64_t quads, int64_t quad, int64_t index, const Copy& copy) {
  const Tile tile = layout.tile(index);
  const int64_t lane = (index * quads + quad) * layout.pitch;
  const int64_t pixel = tile.row * layout.width + tile.column;
  if (tile.columns == layout.width) {
    copy(lane, pixel, tile.pixels());
    return;
  }
  for (int64_t row = 0; row < tile.rows; ++row) {
    copy(lane + row * tile.columns, pixel + row * layout.width, tile.columns);
  }
}

template <class Copy>
void ForEachRun(const PanelLayout& layout, int64_t quads, Range tiles, Range of_quads, const Copy& copy) {
  for (int64_t index = tiles.first; index < tiles.last; ++index) {
    for (int64_t quad = of_quads.first; quad < of_quads.last; ++quad) {
      ForEachRun(layout, quads, quad, index,
                 [&](int64_t lane, int64_t pixel, int64_t count) { copy(quad, lane, pixel, count); });
    }
  }
}

// Pixels that are converted before they are interleaved, or taken apart before they are converted.
constexpr int64_t kChunk = 256;
using Planes = PanelByte[kQuad][kChunk];

// Both loops are vectorised where all four channels stand in one body.
void Interleave(const Planes& planes, int64_t count, PanelByte* lanes) {
  for (int64_t i = 0; i < count; ++i) {
    lanes[kQuad * i] = planes[0][i];
    lanes[kQuad * i + 1] = planes[1][i];
    lanes[kQuad * i + 2] = planes[2][i];
    lanes[kQuad * i + 3] = planes[3][i];
  }
}

void TakeApart(const PanelByte* lanes, int64_t count, Planes* planes) {
  for (int64_t i = 0; i < count; ++i) {
    (*planes)[0][i] = lanes[kQuad * i];
    (*planes)[1][i] = lanes[kQuad * i + 1];
    (*planes)[2][i] = lanes[kQuad * i + 2];
    (*planes)[3][i] = lanes[kQuad * i + 3];
  }
}

// panel = byte ^ flipped for every byte of an image.
void ToPanel(const PanelLayout& layout, int64_t channels, const uint8_t* planar, uint8_t flipped, int32_t zero_point,
             Range tiles, Range of_quads, PanelByte* panel) {
  const int64_t pixels = layout.height * layout.width;
  ForEachRun(layout, QuadsOf(channels), tiles, of_quads, [&](int64_t quad, int64_t lane, int64_t pixel, int64_t all) {
    const int64_t there = std::min(kQuad, channels - kQuad * quad);
    Planes planes;
    for (int64_t begin = 0; begin < all; begin += kChunk) {
      const int64_t count = std::min(kChunk, all - begin);
      for (int64_t c = 0; c < kQuad; ++c) {
        if (c >= there) {
          std::fill_n(planes[c], count, PanelByteOf(zero_point));
          continue;
        }
        const uint8_t* const from = planar + (kQuad * quad + c) * pixels + pixel + begin;
        for (int64_t i = 0; i < count; ++i) planes[c][i] = PanelByteOf(static_cast<uint8_t>(from[i] ^ flipped));
      }
      Interleave(planes, count, panel + kQuad * (lane + begin));
    }
  });
}

template <class Element, class Value>
void FromPanel(const PanelLayout& layout, int64_t channels, const PanelByte* panel, Range tiles, Range of_quads,
               Element* planar, const Value& value) {
  const int64_t pixels = layout.height * layout.width;
  ForEachRun(layout, QuadsOf(channels), tiles, of_quads, [&](int64_t quad, int64_t lane, int64_t pixel, int64_t all) {
    const int64_t there = std::min(kQuad, channels - kQuad * quad);
    Planes planes;
    for (int64_t begin = 0; begin < all; begin += kChunk) {
      const int64_t count = std::min(kChunk, all - begin);
      TakeApart(panel + kQuad * (lane + begin), count, &planes);
      for (int64_t c = 0; c < there; ++c) {
        Element* const to = planar + (kQuad * quad + c) * pixels + pixel + begin;
        for (int64_t i = 0; i < count; ++i) to[i] = value(ValueOf(planes[c][i]));
      }
    }
  });
}

}  // namespace

std::vector<PanelByte> PanelTable(const std::vector<uint8_t>& table) {
  std::vector<PanelByte> of_bytes(table.size());
  for (size_t value = 0; value < table.size(); ++value) {
    of_bytes[static_cast<uint8_t>(PanelByteOf(static_cast<int32_t>(value)))] = PanelByteOf(table[value]);
  }
  return of_bytes;
}

void QuantisedFromPlanar(const PanelLayout& layout, int64_t channels, const uint8_t* planar, uint8_t flipped,
                         int32_t zero_point, Range tiles, Range of_quads, PanelByte* panel) {
  ToPanel(layout, channels, planar, flipped, zero_point, tiles, of_quads, panel);
}

void QuantisedFromPlanar(const PanelLayout& layout, int64_t channels, const float* planar, const Quantisation& q,
                         Range tiles, Range of_quads, PanelByte* panel) {
  const int64_t pixels = layout.height * layout.width;
  ForEachRun(layout, QuadsOf(channels), tiles, of_quads, [&](int64_t quad, int64_t lane, int64_t pixel, int64_t count) {
    FloatPlanes planes = {};
    const int64_t there = std::min(kQuad, channels - kQuad * quad);
    for (int64_t c = 0; c < there; ++c) planes[static_cast<size_t>(c)] = planar + (kQuad * quad + c) * pixels + pixel;
    LanesOfFloats(planes, q, count, reinterpret_cast<int32_t*>(panel) + lane);
  });
}

void PlanarFromQuantised(const PanelLayout& layout, int64_t channels, const PanelByte* panel, Range tiles,
                         Range of_quads, uint8_t* planar) {
  FromPanel(layout, channels, panel, tiles, of_quads, planar,
            [](int32_t value) { return static_cast<uint8_t>(value); });
}

void PlanarFromQuantised(const PanelLayout& layout, int64_t channels, const PanelByte* panel, const Quantisation& q,
                         Range tiles, Range of_quads, float* planar) {
  FromPanel(layout, channels, panel, tiles, of_quads, planar,
            [=](int32_t value) { return static_cast<float>(value - q.zero_point) * q.scale; });
}

}  // namespace gossamer
