#include "kernels/tap_windows.h"

#include <algorithm>
#include <limits>

namespace gossamer {
namespace {

constexpr int64_t kWorthIt = 8;  // the work saved is at least all of it by this
constexpr int64_t kMostStreams = 4;
// With more windows than this for a start, choosing between them would take long.
constexpr size_t kMostWindows = 64;

bool Same(const TapWindow& a, const TapWindow& b) {
  return a.rows.first == b.rows.first && a.rows.last == b.rows.last && a.columns.first == b.columns.first &&
         a.columns.last == b.columns.last;
}

Range Join(const Range& a, const Range& b) {
  if (a.first == a.last) return b;
  if (b.first == b.last) return a;
  return {std::min(a.first, b.first), std::max(a.last, b.last)};
}

TapWindow Join(const TapWindow& a, const TapWindow& b) { return {Join(a.rows, b.rows), Join(a.columns, b.columns)}; }

// Joins windows until their streams are few enough: each time the two whose tiles then compute the least in vain.
class Joining {
 public:
  Joining(TapWindows found, int64_t all) : found_(std::move(found)), all_(all), tiles_(found_.windows.size()) {
    for (const int32_t window : found_.of_tile) ++tiles_[static_cast<size_t>(window)];
  }

  TapWindows Join() && {
    while (found_.windows.size() > 1 && StreamTaps() > kMostStreams * all_) JoinCheapest();
    return std::move(found_);
  }

 private:
  int64_t StreamTaps() const {
    int64_t taps = 0;
    for (const TapWindow& window : found_.windows) taps += window.taps();
    return taps;
  }

  int64_t InVain(size_t a, size_t b) const {
    const int64_t joined = gossamer::Join(found_.windows[a], found_.windows[b]).taps();
    return tiles_[a] * (joined - found_.windows[a].taps()) + tiles_[b] * (joined - found_.windows[b].taps());
  }

  void JoinCheapest() {
    size_t first = 0, second = 1;
    int64_t least = std::numeric_limits<int64_t>::max();
    for (size_t a = 0; a < found_.windows.size(); ++a) {
      for (size_t b = a + 1; b < found_.windows.size(); ++b) {
        if (const int64_t in_vain = InVain(a, b); in_vain < least) {
          least = in_vain;
          first = a;
          second = b;
        }
      }
    }
    found_.windows[first] = gossamer::Join(found_.windows[first], found_.windows[second]);
    tiles_[first] += tiles_[second];
    found_.windows.erase(found_.windows.begin() + static_cast<std::ptrdiff_t>(second));
    tiles_.erase(tiles_.begin() + static_cast<std::ptrdiff_t>(second));
    for (int32_t& window : found_.of_tile) {
      if (window == static_cast<int32_t>(second)) {
        window = static_cast<int32_t>(first);
      } else if (window > static_cast<int32_t>(second)) {
        --window;
      }
    }
  }

  TapWindows found_;
  int64_t all_;
  std::vector<int64_t> tiles_;  // of each window
};

}  // namespace

TapWindows MakeTapWindows(const Axis& row_axis, const std::vector<AxisTap>& rows, const Axis& column_axis,
                          const std::vector<AxisTap>& columns, const PanelLayout& output) {
  const TapWindow all{{0, static_cast<int64_t>(rows.size())}, {0, static_cast<int64_t>(columns.size())}};
  const TapWindows one{{all}, std::vector<int32_t>(static_cast<size_t>(output.tiles()), 0)};
  TapWindows found;
  int64_t work = 0;
  for (int64_t index = 0; index < output.tiles(); ++index) {
    const Tile tile = output.tile(index);
    const TapWindow window{LiveRange(row_axis, rows, tile.row, tile.row + tile.rows),
                           LiveRange(column_axis, columns, tile.column, tile.column + tile.columns)};
    const auto same = std::find_if(found.windows.begin(), found.windows.end(),
                                   [&](const TapWindow& other) { return Same(window, other); });
    found.of_tile.push_back(static_cast<int32_t>(same - found.windows.begin()));
    if (same == found.windows.end()) found.windows.push_back(window);
    if (found.windows.size() > kMostWindows) return one;
    work += window.taps();
  }
  if (kWorthIt * work > (kWorthIt - 1) * all.taps() * output.tiles()) return one;
  return Joining(std::move(found), all.taps()).Join();
}

}  // namespace gossamer
