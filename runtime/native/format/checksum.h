// The checksum of a packed weight: CRC-32 of IEEE 802.3, the one of zlib and of Python's zlib.crc32.
#ifndef GOSSAMER_FORMAT_CHECKSUM_H_
#define GOSSAMER_FORMAT_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

namespace gossamer {

uint32_t Checksum(const uint8_t* bytes, size_t size);

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_CHECKSUM_H_
