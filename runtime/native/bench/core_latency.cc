// How long a cache line takes from one processor to another, by a game of ping-pong between two threads. Tens of
// nanoseconds where the two share their last cache, hundreds where they do not. A library, to be called between the runs
// of a session: a virtual machine's processors move when they are idle for a while.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace {

// Uncounted, some 15 ms and more: a new thread may begin on the processor of the one that made it.
constexpr int64_t kFirst = 300000;
constexpr int64_t kCounted = 100000;

}  // namespace

extern "C" __attribute__((visibility("default"))) double CoreLatencyNanoseconds() {
  using Clock = std::chrono::steady_clock;
  alignas(64) std::atomic<int64_t> ball{0};
  std::thread other([&ball] {
    for (int64_t round = 0; round < kFirst + kCounted; ++round) {
      while (ball.load(std::memory_order_acquire) != 2 * round + 1) {
      }
      ball.store(2 * round + 2, std::memory_order_release);
    }
  });
  Clock::time_point start;
  for (int64_t round = 0; round < kFirst + kCounted; ++round) {
    if (round == kFirst) start = Clock::now();
    ball.store(2 * round + 1, std::memory_order_release);
    while (ball.load(std::memory_order_acquire) != 2 * round + 2) {
    }
  }
  const Clock::time_point end = Clock::now();
  other.join();
  return std::chrono::duration<double, std::nano>(end - start).count() / (2.0 * kCounted);
}
