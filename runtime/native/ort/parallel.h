// Work spread over ONNX Runtime's own threads, and the scratch memory for it.
#ifndef GOSSAMER_ORT_PARALLEL_H_
#define GOSSAMER_ORT_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels/share.h"
#include "kernels/work_stealing.h"
#include "ort/op.h"

namespace gossamer {

// Memory for the parts of an op's work, kept from op to op by the thread that runs a session. Each part has a block of its
// own: were they parts of one, their borders would differ from op to op, and threads would take lines from each other that
// neither needs, 6% of ResNet-50's time where they share no cache. Allocated before the work is spread, where a failure
// can still be reported.
class Scratch {
 public:
  // `floats` for each of `parts`. Zeros where the memory is new: kernels read a few floats more than they staged, and those
  // must not be denormal.
  static Scratch& OfThisThread(int64_t floats, int64_t parts) {
    static thread_local Scratch scratch;
    if (scratch.blocks_.size() < static_cast<size_t>(parts)) scratch.blocks_.resize(static_cast<size_t>(parts));
    for (int64_t part = 0; part < parts; ++part) scratch.blocks_[static_cast<size_t>(part)].Grow(floats);
    return scratch;
  }

  float* of(int64_t part) const { return blocks_[static_cast<size_t>(part)].memory.get(); }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  struct Block {
    std::unique_ptr<float, Free> memory;
    int64_t floats = 0;

    void Grow(int64_t wanted) {
      if (wanted <= floats) return;
      memory.reset();
      floats = 0;
      const size_t bytes = (static_cast<size_t>(wanted) * sizeof(float) + 4095) / 4096 * 4096;
      memory.reset(static_cast<float*>(std::aligned_alloc(4096, bytes)));
      if (memory == nullptr) throw std::bad_alloc();
      std::fill_n(memory.get(), bytes / sizeof(float), 0.0f);
      floats = wanted;
    }
  };

  std::vector<Block> blocks_;
};

// Calls run(part) for parts [0, parts), each on a thread of its own. `run` must not throw.
template <class Run>
void ParallelParts(const Ort::KernelContext& context, int64_t parts, const Run& run) {
  if (parts <= 1) {
    run(int64_t{0});
    return;
  }
  context.ParallelFor([](void* data, size_t part) { (*static_cast<const Run*>(data))(static_cast<int64_t>(part)); },
                      static_cast<size_t>(parts), static_cast<size_t>(parts), const_cast<Run*>(&run));
}

// Calls run(first, last, part) for contiguous ranges of [0, items), one a thread at most.
template <class Run>
void ParallelRanges(const Ort::KernelContext& context, int64_t items, int64_t threads, const Run& run) {
  if (items <= 0) return;
  const int64_t parts = std::min(items, threads);
  ParallelParts(context, parts, [&](int64_t part) {
    const Range share = ShareOf(items, parts, part);
    run(share.first, share.last, part);
  });
}

// Calls run(first, last, part) for ranges that make up [0, items), as many as the threads steal from each other
// (SharedItems, with `together`). Calls with the same `part` come one after the other.
template <class Run>
void ParallelStealing(const Ort::KernelContext& context, int64_t items, int64_t threads, int64_t together,
                      const Run& run) {
  const int64_t parts = std::min(items, threads);
  if (parts <= 1 || items > SharedItems::kMostItems) {
    ParallelRanges(context, items, threads, run);
    return;
  }
  static thread_local SharedItems of_this_thread;
  SharedItems& shared = of_this_thread;  // the other threads must not take theirs
  shared.Deal(items, parts, together);
  ParallelParts(context, parts, [&](int64_t part) {
    for (Range range = shared.Next(part); range.first < range.last; range = shared.Next(part)) {
      run(range.first, range.last, part);
    }
  });
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PARALLEL_H_
