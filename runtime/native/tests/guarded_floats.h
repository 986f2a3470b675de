// Memory beside which nothing may be touched.
#ifndef GOSSAMER_TESTS_GUARDED_FLOATS_H_
#define GOSSAMER_TESTS_GUARDED_FLOATS_H_

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace gossamer {

// Floats that end at a page that must not be touched (and begin after one, at the next multiple of 64 bytes): the address
// sanitizer does not see the loads and stores under a mask, so the processor has to notice what they touch beside a buffer.
class GuardedFloats {
 public:
  GuardedFloats() = default;
  explicit GuardedFloats(int64_t count, float value = 1.0f) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    size_ = (bytes + page - 1) / page * page + 2 * page;
    memory_ = static_cast<uint8_t*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + page, size_ - 2 * page, PROT_READ | PROT_WRITE) != 0) std::abort();
    data_ = reinterpret_cast<float*>(memory_ + size_ - page - bytes);
    std::fill_n(data_, count, value);
  }
  ~GuardedFloats() {
    if (memory_ != nullptr) munmap(memory_, size_);
  }
  GuardedFloats(GuardedFloats&& other) noexcept { *this = std::move(other); }
  GuardedFloats& operator=(GuardedFloats&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }

  float* get() const { return data_; }

 private:
  uint8_t* memory_ = nullptr;
  size_t size_ = 0;
  float* data_ = nullptr;
};

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_GUARDED_FLOATS_H_
