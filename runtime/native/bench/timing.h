// How kernel_bench times a layer.
#ifndef GOSSAMER_BENCH_TIMING_H_
#define GOSSAMER_BENCH_TIMING_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/product_plan.h"

namespace gossamer {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string shapes;
  double density = 0.1;
  int64_t threads = 1;
  int64_t block_bytes = 0;
  int repeats = 0;
  bool column_shift = true;
  bool count = false;
  Arithmetic arithmetic = Arithmetic::kFloat;
  bool int8 = false;
  bool blocks = false;  // of four input channels; int8 only
  bool residual = false;  // added to every convolution; int8 only
  bool pairs = false;   // int8 without instructions for four products at once
  std::string target;
};

struct Timing {
  double median = 0.0;
  double low = 0.0;   // 10th percentile
  double high = 0.0;  // 90th
  int repeats = 0;
  double packing = 0.0;  // seconds
  double multiply_adds = 0.0;
  double padding = 0.0;
  size_t blocks = 0;
};

class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count) : data_(static_cast<float*>(std::aligned_alloc(4096, Bytes(count)))) {
    std::memset(data_, 0, Bytes(count));
  }
  ~AlignedFloats() { std::free(data_); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;
  float* data() const { return data_; }

  void Draw(int64_t count, std::mt19937* random) {
    std::uniform_real_distribution<float> uniform(-0.5f, 0.5f);
    for (int64_t i = 0; i < count; ++i) data_[i] = uniform(*random);
  }

 private:
  static size_t Bytes(int64_t count) { return (static_cast<size_t>(count) * sizeof(float) + 8191) / 4096 * 4096; }
  float* data_;
};

template <class Run>
void Measure(const Options& options, const Run& run, Timing* timing) {
  // Enough repeats for 30 ms at a fast core's rate, and never fewer than 15.
  const int repeats = options.repeats > 0
                          ? options.repeats
                          : static_cast<int>(std::clamp(0.03 * 40e9 / std::max(timing->multiply_adds, 1.0), 15.0, 300.0));
  run();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  timing->median = seconds[seconds.size() / 2];
  timing->low = seconds[seconds.size() / 10];
  timing->high = seconds[seconds.size() * 9 / 10];
  timing->repeats = repeats;
}

}  // namespace gossamer

#endif  // GOSSAMER_BENCH_TIMING_H_
