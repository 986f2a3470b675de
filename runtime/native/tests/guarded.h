// Memory with a guard behind.
#ifndef GOSSAMER_TESTS_GUARDED_H_
#define GOSSAMER_TESTS_GUARDED_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace gossamer {

// Aligned to 64 bytes, as the kernels like it, and filled with a number that nothing else is likely to be.
template <class Number>
class Guarded {
 public:
  Guarded(int64_t count, Number untouched)
      : untouched_(untouched), storage_(static_cast<size_t>(count) + 16 + kGuard, untouched) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(storage_.data());
    skip_ = (64 - address % 64) % 64 / sizeof(Number);
    count_ = static_cast<size_t>(count);
  }
  Guarded(const Guarded& other) : Guarded(static_cast<int64_t>(other.count_), other.untouched_) {
    std::copy_n(other.data(), count_, data());
  }
  Guarded(Guarded&&) = default;
  Guarded& operator=(const Guarded&) = delete;

  Number* data() { return storage_.data() + skip_; }
  const Number* data() const { return storage_.data() + skip_; }
  bool guard_is_untouched() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (data()[count_ + i] != untouched_) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  Number untouched_;
  std::vector<Number> storage_;
  size_t skip_ = 0;
  size_t count_ = 0;
};

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_GUARDED_H_
