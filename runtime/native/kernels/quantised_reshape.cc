#include "kernels/quantised_reshape.h"

#include <algorithm>
#include <cstring>

namespace gossamer {
namespace {

// A whole lane of channels becomes one, and all of it at once.
void CopyLane(const std::vector<PanelByte>& table, int64_t pixels, const PanelByte* from, PanelByte* to) {
  if (table.empty()) {
    std::memcpy(to, from, static_cast<size_t>(kQuad * pixels));
    return;
  }
  for (int64_t i = 0; i < kQuad * pixels; ++i) to[i] = table[static_cast<uint8_t>(from[i])];
}

void CopyChannel(const std::vector<PanelByte>& table, int64_t pixels, const PanelByte* from, PanelByte* to) {
  for (int64_t i = 0; i < pixels; ++i) {
    const PanelByte byte = from[kQuad * i];
    to[kQuad * i] = table.empty() ? byte : table[static_cast<uint8_t>(byte)];
  }
}

}  // namespace

std::vector<uint8_t> RescalingTable(const Quantisation& from, const Quantisation& to) {
  const float factor = from.scale / to.scale;
  std::vector<uint8_t> table;
  for (int32_t value = 0; value < 256; ++value) {
    table.push_back(Quantised({1.0f, to.zero_point}, static_cast<float>(value - from.zero_point) * factor));
  }
  return table;
}

void CopyChannels(const PanelLayout& layout, const ConcatInput& input, int64_t output_channels, const int32_t* from,
                  Range tiles, int32_t* to) {
  for (int64_t index = tiles.first; index < tiles.last; ++index) {
    const int64_t pixels = layout.tile(index).pixels();
    const PanelByte* const tile = reinterpret_cast<const PanelByte*>(from + index * QuadsOf(input.channels) * layout.pitch);
    PanelByte* const output = reinterpret_cast<PanelByte*>(to + index * QuadsOf(output_channels) * layout.pitch);
    const int64_t lane = kQuad * layout.pitch;
    for (int64_t c = 0; c < input.channels; ++c) {
      const int64_t channel = input.first_channel + c;
      if (c % kQuad == 0 && channel % kQuad == 0 && c + kQuad <= input.channels) {
        CopyLane(input.table, pixels, tile + c / kQuad * lane, output + channel / kQuad * lane);
        c += kQuad - 1;
        continue;
      }
      CopyChannel(input.table, pixels, tile + c / kQuad * lane + c % kQuad, output + channel / kQuad * lane + channel % kQuad);
    }
  }
}

void RepeatPixels(const PanelLayout& input, const PanelLayout& output, int64_t rows, int64_t columns, int64_t quads,
                  const int32_t* from, Range of_quads, int32_t* to) {
  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    for (int64_t quad = of_quads.first; quad < of_quads.last; ++quad) {
      int32_t* lane = to + (index * quads + quad) * output.pitch;
      for (int64_t y = tile.row; y < tile.row + tile.rows; ++y) {
        for (int64_t x = tile.column; x < tile.column + tile.columns;) {
          // All copies of one pixel that lie in this row of the tile.
          const int64_t row = y / rows, column = x / columns;
          const int32_t pixel = from[(input.tile_of(row, column) * quads + quad) * input.pitch + input.offset_in_tile(row, column)];
          const int64_t end = std::min((column + 1) * columns, tile.column + tile.columns);
          for (; x < end; ++x) *lane++ = pixel;
        }
      }
    }
  }
}

}  // namespace gossamer
