#include "kernels/work_stealing.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace gossamer {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

Ranges TakeAll(SharedItems* items, int64_t part) {
  Ranges taken;
  for (Range range = items->Next(part); range.first < range.last; range = items->Next(part)) {
    taken.emplace_back(range.first, range.last);
  }
  return taken;
}

TEST(SharedItems, AThreadTakesItsShareFromTheFrontThenAnothersFromTheBack) {
  SharedItems items;
  items.Deal(7, 2, 1);  // [0, 3) and [3, 7)
  EXPECT_EQ(TakeAll(&items, 1), (Ranges{{3, 4}, {4, 5}, {5, 6}, {6, 7}, {2, 3}, {1, 2}, {0, 1}}));
  EXPECT_EQ(TakeAll(&items, 0), Ranges());
}

TEST(SharedItems, TheSlicesOfATileStayTogetherUnlessAShareEndsBetweenThem) {
  SharedItems items;
  items.Deal(14, 2, 2);  // seven tiles of two slices: [0, 7) and [7, 14)
  EXPECT_EQ(TakeAll(&items, 0), (Ranges{{0, 2}, {2, 4}, {4, 6}, {6, 7}, {12, 14}, {10, 12}, {8, 10}, {7, 8}}));
}

TEST(SharedItems, IsDealtAnewWithMoreOrFewerThreads) {
  SharedItems items;
  items.Deal(4, 2, 1);
  TakeAll(&items, 0);
  items.Deal(6, 3, 1);
  EXPECT_EQ(TakeAll(&items, 2), (Ranges{{4, 5}, {5, 6}, {1, 2}, {0, 1}, {3, 4}, {2, 3}}));
  items.Deal(2, 2, 1);
  EXPECT_EQ(TakeAll(&items, 0), (Ranges{{0, 1}, {1, 2}}));
}

TEST(SharedItems, CountsAsFarAsItMay) {
  SharedItems items;
  items.Deal(SharedItems::kMostItems, 2, SharedItems::kMostItems);
  EXPECT_EQ(TakeAll(&items, 1),
            (Ranges{{SharedItems::kMostItems / 2, SharedItems::kMostItems}, {0, SharedItems::kMostItems / 2}}));
}

TEST(SharedItems, EveryItemIsTakenOnceWhileThreadsRace) {
  std::mt19937 random(1);
  SharedItems items;
  for (int round = 0; round < 200; ++round) {
    const int64_t count = 1 + static_cast<int64_t>(random() % 5000);
    const int64_t parts = 1 + static_cast<int64_t>(random() % 6);
    const int64_t together = 1 + static_cast<int64_t>(random() % 7);
    items.Deal(count, parts, together);
    std::vector<std::atomic<int>> taken(static_cast<size_t>(count));
    std::vector<std::thread> threads;
    for (int64_t part = 0; part < parts; ++part) {
      threads.emplace_back([&, part] {
        for (const auto& [first, last] : TakeAll(&items, part)) {
          for (int64_t item = first; item < last; ++item) ++taken[static_cast<size_t>(item)];
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::atomic<int>& times : taken) ASSERT_EQ(times, 1) << "round " << round;
  }
}

}  // namespace
}  // namespace gossamer
