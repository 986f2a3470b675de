#include "kernels/panel.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace gossamer {
namespace {

TEST(Panel, TilesOfTheUsualSizes) {
  const PanelLayout large = MakePanelLayout(56, 56);
  EXPECT_EQ(large.tile_rows, 2);
  EXPECT_EQ(large.tiles(), 28);
  EXPECT_EQ(large.pitch, 112);
  EXPECT_EQ(large.storage_channels(64), 64);

  const PanelLayout middle = MakePanelLayout(28, 28);
  EXPECT_EQ(middle.tile_rows, 4);
  EXPECT_EQ(middle.tiles(), 7);

  const PanelLayout small = MakePanelLayout(14, 14);
  EXPECT_EQ(small.tile(0).rows, 8);
  EXPECT_EQ(small.tile(1).rows, 6);

  const PanelLayout smallest = MakePanelLayout(7, 7);
  EXPECT_EQ(smallest.tiles(), 1);
  EXPECT_EQ(smallest.pitch, 56);

  const PanelLayout wide = MakePanelLayout(224, 224);
  EXPECT_EQ(wide.segments, 2);
  EXPECT_EQ(wide.tile_columns, 112);
}

TEST(Panel, TilesCoverEveryPixelOnceAndFit) {
  for (int64_t height = 1; height <= 40; ++height) {
    for (int64_t width = 1; width <= 240; width += 1 + width / 20) {
      const PanelLayout layout = MakePanelLayout(height, width);
      std::vector<int> seen(static_cast<size_t>(height * width), 0);
      for (int64_t index = 0; index < layout.tiles(); ++index) {
        const Tile tile = layout.tile(index);
        ASSERT_GE(tile.rows, 1);
        ASSERT_GE(tile.columns, 1);
        ASSERT_LE(tile.pixels(), layout.pitch);
        ASSERT_LE(tile.pixels(), kTilePixels);
        for (int64_t y = tile.row; y < tile.row + tile.rows; ++y) {
          for (int64_t x = tile.column; x < tile.column + tile.columns; ++x) {
            ++seen[static_cast<size_t>(y * width + x)];
            ASSERT_EQ(layout.tile_of(y, x), index);
            ASSERT_EQ(layout.offset_in_tile(y, x), (y - tile.row) * tile.columns + x - tile.column);
          }
        }
      }
      for (const int count : seen) ASSERT_EQ(count, 1) << height << " x " << width;
    }
  }
}

TEST(Panel, StorageIsLargeEnoughAndImagesAreAligned) {
  for (int64_t height = 1; height <= 30; ++height) {
    for (int64_t width = 1; width <= 130; ++width) {
      const PanelLayout layout = MakePanelLayout(height, width);
      for (const int64_t channels : {1, 3, 64}) {
        ASSERT_GE(layout.image_stride(channels), layout.image_floats(channels));
        ASSERT_EQ(layout.image_stride(channels) % 16, 0);
      }
    }
  }
}

TEST(Panel, LiesAsDescribed) {
  // 2 channels of 3 x 60: a tile holds one row, of 60 pixels in a pitch of 64.
  std::vector<float> planar(2 * 3 * 60);
  std::iota(planar.begin(), planar.end(), 0.0f);
  const PanelLayout layout = MakePanelLayout(3, 60);
  ASSERT_EQ(layout.tile_rows, 1);
  ASSERT_EQ(layout.pitch, 64);
  std::vector<float> panel(static_cast<size_t>(layout.image_floats(2)), -1.0f);
  PanelFromPlanar(layout, 2, planar.data(), 0, layout.tiles(), panel.data());
  EXPECT_EQ(panel[0], 0.0f);          // channel 0, row 0
  EXPECT_EQ(panel[60], 0.0f);         // nothing
  EXPECT_EQ(panel[64], 180.0f);       // channel 1, row 0
  EXPECT_EQ(panel[2 * 64], 60.0f);    // channel 0, row 1
  EXPECT_EQ(panel[3 * 64 + 1], 241.0f);
}

TEST(Panel, ThereAndBack) {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {7, 7}, {14, 14}, {13, 9}, {5, 224}, {1, 300}}) {
    const PanelLayout layout = MakePanelLayout(height, width);
    std::vector<float> planar(static_cast<size_t>(3 * height * width));
    std::iota(planar.begin(), planar.end(), 1.0f);
    std::vector<float> panel(static_cast<size_t>(layout.image_floats(3)), -1.0f);
    std::vector<float> back(planar.size(), -1.0f);
    PanelFromPlanar(layout, 3, planar.data(), 0, layout.tiles(), panel.data());
    PlanarFromPanel(layout, 3, panel.data(), 0, layout.tiles(), back.data());
    EXPECT_EQ(planar, back);
  }
}

}  // namespace
}  // namespace gossamer
