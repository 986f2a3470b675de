#include "kernels/large_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "hwy/base.h"

namespace gossamer {
namespace {

constexpr size_t kPage = size_t{2} << 20;
constexpr size_t kChunk = 2 * kPage;
constexpr size_t kLine = 64;
// Shorter content stays where it is: a small network is not to take a large page for a few kilobytes.
constexpr size_t kLongBytes = size_t{32} << 10;
// The address sanitizer sees the end of an allocation, not that of a part of one.
constexpr bool kShared = !HWY_IS_ASAN;
#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // since Linux 6.1; an older one refuses it
#endif

size_t RoundUp(size_t value, size_t step) { return (value + step - 1) / step * step; }

bool FileHolds(const char* path, const char* text) {
  char content[64] = {};
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return false;
  const size_t read = std::fread(content, 1, sizeof(content) - 1, file);
  std::fclose(file);
  return read > 0 && std::strstr(content, text) != nullptr;
}

// With a base page of 64 KiB, as some ARM systems have it, a large one takes 512 MiB.
bool Wanted() {
  static const bool wanted = FileHolds("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n") &&
                             !FileHolds("/sys/kernel/mm/transparent_hugepage/enabled", "[never]");
  return wanted;
}

// What long contents are appended to; gone when all of them are.
struct Chunk {
  explicit Chunk(size_t bytes) : size(bytes), memory(static_cast<uint8_t*>(std::aligned_alloc(kPage, bytes))) {
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, size, MADV_HUGEPAGE);
  }
  ~Chunk() { std::free(memory); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  size_t size;
  size_t used = 0;
  uint8_t* memory;
};

}  // namespace

StoredBytes::StoredBytes(std::vector<uint8_t>&& content) : size_(content.size()) {
  if (!kShared || size_ < kLongBytes || !Wanted()) {
    content.shrink_to_fit();
    auto kept = std::make_shared<const std::vector<uint8_t>>(std::move(content));
    data_ = kept->data();
    owner_ = std::move(kept);
    return;
  }
  static std::mutex mutex;
  static std::weak_ptr<Chunk> current;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Chunk> chunk = current.lock();
  if (chunk == nullptr || chunk->size - chunk->used < size_) {
    chunk = std::make_shared<Chunk>(std::max(kChunk, RoundUp(size_, kPage)));
    current = chunk;
  }
  uint8_t* const place = chunk->memory + chunk->used;
  chunk->used = std::min(chunk->size, chunk->used + RoundUp(size_, kLine));
  std::memcpy(place, content.data(), size_);
  data_ = place;
  owner_ = std::move(chunk);
}

void MakePagesLarge(const void* data, size_t bytes) {
  if (!Wanted()) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / kPage * kPage;
  const uintptr_t end = RoundUp(reinterpret_cast<uintptr_t>(data) + bytes, kPage);
  // One by one: the first and the last may reach into memory that is not there, and would fail for all.
  for (uintptr_t page = begin; page < end; page += kPage) {
    madvise(reinterpret_cast<void*>(page), kPage, MADV_HUGEPAGE);
    madvise(reinterpret_cast<void*>(page), kPage, kCollapse);
  }
}

}  // namespace gossamer
