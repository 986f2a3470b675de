#include "kernels/large_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <thread>
#include <vector>

namespace gossamer {
namespace {

constexpr size_t kPage = size_t{2} << 20;

std::vector<uint8_t> Pattern(size_t bytes, unsigned seed) {
  std::vector<uint8_t> content(bytes);
  for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<uint8_t>((i * 31 + seed * 97) >> (i % 3));
  return content;
}

void ExpectHolds(const StoredBytes& stored, const std::vector<uint8_t>& content) {
  ASSERT_EQ(stored.size(), content.size());
  EXPECT_TRUE(content.empty() || std::memcmp(stored.data(), content.data(), content.size()) == 0);
}

TEST(StoredBytes, HoldsWhatItWasGiven) {
  ExpectHolds(StoredBytes(), {});
  // Short, around the length from which pages are shared, of a whole chunk, and more than one.
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{32767}, size_t{32768}, size_t{100001}, 2 * kPage,
                             2 * kPage + 1, 3 * kPage}) {
    ExpectHolds(StoredBytes(Pattern(bytes, 1)), Pattern(bytes, 1));
  }
}

TEST(StoredBytes, ManyDoNotOverlapWhateverIsFreedInBetween) {
  std::vector<StoredBytes> kept(60);
  for (unsigned i = 0; i < 60; ++i) {
    kept[i] = StoredBytes(Pattern(40'000 + 7'919 * i, i));
    if (i % 3 == 2) kept[i - 1] = StoredBytes();
  }
  for (unsigned i = 0; i < 60; ++i) {
    if (i % 3 == 1) continue;
    ExpectHolds(kept[i], Pattern(40'000 + 7'919 * i, i));
  }
}

TEST(StoredBytes, ACopyOutlivesTheOriginal) {
  StoredBytes copy;
  {
    const StoredBytes original(Pattern(50'000, 3));
    copy = original;
  }
  const StoredBytes other(Pattern(50'000, 4));
  ExpectHolds(copy, Pattern(50'000, 3));
}

TEST(StoredBytes, ThreadsMayStoreAtOnce) {
  std::vector<StoredBytes> kept(32);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&kept, t] {
      for (unsigned i = t; i < 32; i += 4) kept[i] = StoredBytes(Pattern(200'003, i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (unsigned i = 0; i < 32; ++i) ExpectHolds(kept[i], Pattern(200'003, i));
}

TEST(MakePagesLarge, LeavesTheContentAndNeedsNoNeighbours) {
  // The middle of a mapping whose both ends are gone: the first and the last large page reach out of it.
  const size_t bytes = 6 * kPage;
  void* const mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapping, MAP_FAILED);
  uint8_t* const begin = static_cast<uint8_t*>(mapping) + kPage / 2;
  const size_t left = bytes - kPage;
  munmap(mapping, kPage / 2);
  munmap(begin + left, kPage / 2);
  const std::vector<uint8_t> content = Pattern(left, 5);
  std::memcpy(begin, content.data(), left);
  MakePagesLarge(begin, left);
  EXPECT_EQ(std::memcmp(begin, content.data(), left), 0);
  MakePagesLarge(begin + 12345, 1);
  EXPECT_EQ(std::memcmp(begin, content.data(), left), 0);
  munmap(begin, left);
}

}  // namespace
}  // namespace gossamer
