// Memory on the processor's large pages (2 MiB), where Linux has them. A network of ResNet-50's size reads and writes some
// 20 MB an inference; on pages of 4 KiB their addresses do not fit into the processor's tables.
#ifndef GOSSAMER_KERNELS_LARGE_PAGES_H_
#define GOSSAMER_KERNELS_LARGE_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace gossamer {

// Bytes that never change. Long ones lie on large pages, which they share with others: a layer's weights take some
// 100 KB, and a network's are read one after the other.
class StoredBytes {
 public:
  StoredBytes() = default;
  explicit StoredBytes(std::vector<uint8_t>&& content);

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<const void> owner_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Asks the system to turn the pages that hold [data, data + bytes) into large ones, now, whoever allocated them. It copies
// what is in them (some 0.2 ms a page); what it cannot do, or was told not to (transparent_hugepage/enabled is never), it
// leaves as it is. The contents stay the same.
void MakePagesLarge(const void* data, size_t bytes);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_LARGE_PAGES_H_
