// Numbers as a file holds them.
#ifndef GOSSAMER_FORMAT_LITTLE_ENDIAN_H_
#define GOSSAMER_FORMAT_LITTLE_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gossamer {

inline uint64_t ReadLittleEndian(const uint8_t* bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

inline void AppendLittleEndian(uint64_t value, size_t count, std::vector<uint8_t>* bytes) {
  for (size_t i = 0; i < count; ++i) bytes->push_back(static_cast<uint8_t>(value >> (8 * i)));
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_LITTLE_ENDIAN_H_
