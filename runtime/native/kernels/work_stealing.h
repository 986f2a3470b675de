// Work stealing over items: each thread begins with its own share, consecutive items from the front, and one that has
// none left steals from the back of another's. Processors are seldom equally fast: one shares its core with another
// program, runs at a lower clock or is of a smaller kind, and with fixed shares all would wait for the slowest.
#ifndef GOSSAMER_KERNELS_WORK_STEALING_H_
#define GOSSAMER_KERNELS_WORK_STEALING_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "kernels/share.h"

namespace gossamer {

class SharedItems {
 public:
  // At most so many, for the first and the last of a share are kept in one word.
  static constexpr int64_t kMostItems = 0x7fffffff;

  // Deals [0, items) to `parts`. Items up to the next multiple of `together` are taken at once. Not while threads take.
  void Deal(int64_t items, int64_t parts, int64_t together) {
    if (shares_.size() < static_cast<size_t>(parts)) shares_ = std::vector<Share>(static_cast<size_t>(parts));
    parts_ = parts;
    together_ = together;
    for (int64_t part = 0; part < parts; ++part) {
      shares_[static_cast<size_t>(part)].left.store(Pack(ShareOf(items, parts, part)), std::memory_order_relaxed);
    }
  }

  // What the thread of `part` does next; empty if everything is taken. Every item is handed out exactly once, whichever
  // threads ask when.
  Range Next(int64_t part) {
    const Range own = Take(part, [this](Range left) {
      return Range{left.first, std::min(left.last, (left.first / together_ + 1) * together_)};
    });
    if (own.first < own.last) return own;
    for (int64_t other = 1; other < parts_; ++other) {
      const Range taken = Take((part + other) % parts_, [this](Range left) {
        return Range{std::max(left.first, (left.last - 1) / together_ * together_), left.last};
      });
      if (taken.first < taken.last) return taken;
    }
    return {0, 0};
  }

 private:
  // Two lines, for processors fetch them in pairs.
  struct alignas(128) Share {
    std::atomic<uint64_t> left{0};
  };

  static uint64_t Pack(Range range) {
    return static_cast<uint64_t>(range.first) << 32 | static_cast<uint64_t>(range.last);
  }
  static Range Unpack(uint64_t word) {
    return {static_cast<int64_t>(word >> 32), static_cast<int64_t>(word & 0xffffffff)};
  }

  // Takes choose(left), which begins where `left` begins or ends where it ends. No memory is passed on with an item, so
  // no order is asked for.
  template <class Choose>
  Range Take(int64_t part, const Choose& choose) {
    std::atomic<uint64_t>& left = shares_[static_cast<size_t>(part)].left;
    uint64_t word = left.load(std::memory_order_relaxed);
    for (;;) {
      const Range all = Unpack(word);
      if (all.first >= all.last) return {0, 0};
      const Range taken = choose(all);
      const Range rest = taken.first == all.first ? Range{taken.last, all.last} : Range{all.first, taken.first};
      if (left.compare_exchange_weak(word, Pack(rest), std::memory_order_relaxed)) return taken;
    }
  }

  std::vector<Share> shares_;
  int64_t parts_ = 0;
  int64_t together_ = 1;
};

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_WORK_STEALING_H_
