#include "kernels/panel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace gossamer {
namespace {

TEST(Panel, TilesOfTheUsualSizes) {
  const PanelLayout large = MakePanelLayout(56, 56);
  EXPECT_EQ(large.tile_rows, 2);
  EXPECT_EQ(large.tiles(), 28);
  EXPECT_EQ(large.pitch, 112);
  EXPECT_EQ(large.storage_channels(64), 65);

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

TEST(Panel, ThreadsTakeWholeTilesWhereThatIsEven) {
  const PanelLayout small = MakePanelLayout(14, 14, 2);
  EXPECT_EQ(small.dealing, Dealing::kTiles);
  EXPECT_EQ(small.tiles(), 2);
  EXPECT_EQ(small.tile(0).rows, 7);
  EXPECT_EQ(small.tile(1).rows, 7);

  // 28 and 7 tiles: 14 each, and 4 against 3. One tile: 4 rows against 3 take longer than half of all 7 at once.
  EXPECT_EQ(MakePanelLayout(56, 56, 2).dealing, Dealing::kTiles);
  EXPECT_EQ(MakePanelLayout(56, 56, 4).dealing, Dealing::kTiles);
  EXPECT_EQ(MakePanelLayout(28, 28, 2).dealing, Dealing::kParts);
  EXPECT_EQ(MakePanelLayout(14, 14, 4).dealing, Dealing::kChannels);
  EXPECT_EQ(MakePanelLayout(7, 7, 2).dealing, Dealing::kChannels);
  // Uneven ones stay as they are for one thread.
  EXPECT_EQ(MakePanelLayout(14, 14, 4).tile_rows, 8);
}

TEST(Panel, StorageIsTheSameForEveryNumberOfThreads) {
  for (int64_t height = 1; height <= 60; ++height) {
    for (int64_t width = 1; width <= 130; width += 1 + width / 20) {
      for (int64_t threads = 2; threads <= 8; ++threads) {
        const PanelLayout layout = MakePanelLayout(height, width, threads);
        ASSERT_EQ(layout.storage_channels(48), MakePanelLayout(height, width).storage_channels(48));
        ASSERT_GE(layout.image_stride(48), layout.image_floats(48));
        int64_t most = 0, all = 0;
        for (int64_t thread = 0; thread < threads; ++thread) {
          int64_t pixels = 0;
          for (int64_t i = layout.tiles() * thread / threads; i < layout.tiles() * (thread + 1) / threads; ++i) {
            pixels += layout.tile(i).pixels();
          }
          most = std::max(most, pixels);
          all += pixels;
        }
        ASSERT_EQ(all, height * width);
        // Pixels are no times, but if threads are to end together none may have many more.
        const double share = static_cast<double>(all) / static_cast<double>(threads);
        ASSERT_TRUE(layout.dealing != Dealing::kTiles || static_cast<double>(most) <= 1.3 * share) << height << " x " << width;
      }
    }
  }
}

TEST(Panel, TilesCoverEveryPixelOnceAndFit) {
  for (int64_t height = 1; height <= 40; ++height) {
    for (int64_t width = 1; width <= 240; width += 1 + width / 20) {
      const PanelLayout layout = MakePanelLayout(height, width, 1 + (height + width) % 3);
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
      for (const int64_t channels : {1, 3, 16, 48, 64}) {
        ASSERT_GE(layout.image_stride(channels), layout.image_floats(channels));
        if (channels % 16 == 0) {
          ASSERT_EQ(layout.image_stride(channels) % 16, 0);
        }
      }
    }
  }
  EXPECT_EQ(MakePanelLayout(14, 14).image_stride(12) % 16, 0);
  EXPECT_LE(MakePanelLayout(14, 14).storage_channels(256), 300);
  EXPECT_LE(MakePanelLayout(7, 7).storage_channels(512), 608);
}

TEST(Panel, StorageTellsTheChannels) {
  for (int64_t height = 1; height <= 30; ++height) {
    for (int64_t width = 1; width <= 130; width += 1 + width / 16) {
      const PanelLayout layout = MakePanelLayout(height, width);
      for (int64_t channels = 1; channels <= 70; ++channels) {
        const int64_t storage = layout.storage_channels(channels);
        ASSERT_GT(layout.storage_channels(channels + 1), storage);
        ASSERT_EQ(layout.channels_of(storage), channels);
        for (int64_t between = storage + 1; between < layout.storage_channels(channels + 1); ++between) {
          ASSERT_EQ(layout.channels_of(between), 0);
        }
        // Joined with another one.
        for (const int64_t other : {int64_t{1}, int64_t{15}, int64_t{16}, channels}) {
          ASSERT_GT(storage + layout.storage_channels(other), layout.storage_channels(channels + other));
        }
      }
      for (int64_t storage = 0; storage < layout.storage_channels(1); ++storage) ASSERT_EQ(layout.channels_of(storage), 0);
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
  PanelFromPlanar(layout, 2, planar.data(), {0, layout.tiles()}, {0, 2}, panel.data());
  EXPECT_EQ(panel[0], 0.0f);          // channel 0, row 0
  EXPECT_EQ(panel[60], 0.0f);         // nothing
  EXPECT_EQ(panel[64], 180.0f);       // channel 1, row 0
  EXPECT_EQ(panel[2 * 64], 60.0f);    // channel 0, row 1
  EXPECT_EQ(panel[3 * 64 + 1], 241.0f);
}

TEST(Panel, ThereAndBack) {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {7, 7}, {14, 14}, {13, 9}, {5, 224}, {1, 300}}) {
    const PanelLayout layout = MakePanelLayout(height, width, 2);
    std::vector<float> planar(static_cast<size_t>(3 * height * width));
    std::iota(planar.begin(), planar.end(), 1.0f);
    std::vector<float> panel(static_cast<size_t>(layout.image_floats(3)), -1.0f);
    std::vector<float> back(planar.size(), -1.0f);
    PanelFromPlanar(layout, 3, planar.data(), {0, layout.tiles()}, {0, 3}, panel.data());
    PlanarFromPanel(layout, 3, panel.data(), {0, layout.tiles()}, {0, 3}, back.data());
    EXPECT_EQ(planar, back);
  }
}

}  // namespace
}  // namespace gossamer
