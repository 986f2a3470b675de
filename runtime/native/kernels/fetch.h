// Fetching a cache line that will be written. __builtin_prefetch(line, 1) is not enough: without a compiler option of its
// own it fetches to read, and a line that another processor holds as well is then asked for a second time by the store.
#ifndef GOSSAMER_KERNELS_FETCH_H_
#define GOSSAMER_KERNELS_FETCH_H_

#include <cstddef>

namespace gossamer {

// Floats of a cache line.
inline constexpr size_t kLineFloats = 16;

// Never fails, wherever `line` points.
inline __attribute__((always_inline)) void FetchToWrite(const void* line) {
#if defined(__x86_64__)
  // Processors of this kind that do not know the instruction ignore it.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, 1, 3);
#endif
}

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_FETCH_H_
