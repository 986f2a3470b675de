// Work spread over ONNX Runtime's own threads, and the scratch memory for it.
#ifndef GOSSAMER_ORT_PARALLEL_H_
#define GOSSAMER_ORT_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/share.h"
#include "ort/op.h"

namespace gossamer {

// Memory of the thread that runs a session, kept from op to op. Allocated before the work is spread, where a failure
// can still be reported.
class Scratch {
 public:
  // Zeros where the memory is new: kernels read a few floats more than they staged, and those must not be denormal.
  static float* OfThisThread(int64_t floats) {
    static thread_local Scratch scratch;
    if (floats > scratch.floats_) {
      scratch.memory_.reset();
      scratch.floats_ = 0;
      const size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + 4095) / 4096 * 4096;
      scratch.memory_.reset(static_cast<float*>(std::aligned_alloc(4096, bytes)));
      if (scratch.memory_ == nullptr) throw std::bad_alloc();
      std::fill_n(scratch.memory_.get(), bytes / sizeof(float), 0.0f);
      scratch.floats_ = floats;
    }
    return scratch.memory_.get();
  }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t floats_ = 0;
};

// Calls run(first, last, part) for contiguous ranges of [0, items), one a thread at most. `run` must not throw.
template <class Run>
void ParallelRanges(const Ort::KernelContext& context, int64_t items, int64_t threads, const Run& run) {
  const int64_t parts = std::min(items, threads);
  if (parts <= 1) {
    if (items > 0) run(int64_t{0}, items, int64_t{0});
    return;
  }
  struct Work {
    const Run* run;
    int64_t items;
    int64_t parts;
  } work{&run, items, parts};
  context.ParallelFor(
      [](void* data, size_t part) {
        const Work& w = *static_cast<const Work*>(data);
        const int64_t p = static_cast<int64_t>(part);
        const Range share = ShareOf(w.items, w.parts, p);
        (*w.run)(share.first, share.last, p);
      },
      static_cast<size_t>(parts), static_cast<size_t>(parts), &work);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PARALLEL_H_
