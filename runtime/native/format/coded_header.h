// The header of a coded weight, read and written. coded_weight.h describes it.
#ifndef GOSSAMER_FORMAT_CODED_HEADER_H_
#define GOSSAMER_FORMAT_CODED_HEADER_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "format/coded_weight.h"
#include "format/little_endian.h"
#include "format/status.h"

namespace gossamer {

// Takes numbers from a header; after the first that is not there, everything is 0 and ok() false.
class HeaderReader {
 public:
  HeaderReader(const uint8_t* bytes, size_t size) : next_(bytes), end_(bytes + size) {}

  uint64_t Number() {
    uint64_t number = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      if (next_ == end_) break;
      const uint8_t byte = *next_++;
      number |= uint64_t{byte & 127u} << shift;
      if (byte < 128) {
        if (byte == 0 && shift > 0) break;  // written longer than it is
        return number;
      }
    }
    return Fail();
  }

  // The upper half of a positive fp32, then, if the sign's bit is set, the lower half, which is not 0.
  float Step() {
    if (left() < 2) return static_cast<float>(Fail());
    const uint64_t upper = Half();
    uint64_t lower = 0;
    if (upper >> 15 != 0) {
      if (left() < 2 || (lower = Half()) == 0) return static_cast<float>(Fail());
    }
    const uint32_t bits = static_cast<uint32_t>((upper & 0x7FFF) << 16 | lower);
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  bool ok() const { return ok_; }
  const uint8_t* next() const { return next_; }
  size_t left() const { return static_cast<size_t>(end_ - next_); }

 private:
  uint64_t Half() {
    const uint64_t half = ReadLittleEndian(next_, 2);
    next_ += 2;
    return half;
  }

  uint64_t Fail() {
    ok_ = false;
    next_ = end_;
    return 0;
  }

  const uint8_t* next_;
  const uint8_t* end_;
  bool ok_ = true;
};

inline void AppendNumber(uint64_t number, std::vector<uint8_t>* bytes) {
  for (; number > 127; number >>= 7) bytes->push_back(static_cast<uint8_t>(number | 128));
  bytes->push_back(static_cast<uint8_t>(number));
}

inline void AppendStep(float step, std::vector<uint8_t>* bytes) {
  uint32_t bits;
  std::memcpy(&bits, &step, sizeof(bits));
  const uint32_t lower = bits & 0xFFFF;
  AppendLittleEndian(bits >> 16 | (lower != 0 ? 0x8000u : 0u), 2, bytes);
  if (lower != 0) AppendLittleEndian(lower, 2, bytes);
}

// Of coder, value type, rank and whether there is a bias.
struct CodedKind {
  LevelCoder coder = LevelCoder::kMixing;
  ValueType value_type = ValueType::kFloat32;
  size_t rank = 1;
  bool has_bias = false;
};

inline constexpr uint8_t kKinds = 4 * 3 * 8 * 2;

inline uint8_t NumberOf(const CodedKind& kind) {
  const size_t axes = kind.rank - 1 + (kind.has_bias ? 8 : 0);
  return static_cast<uint8_t>(static_cast<size_t>(kind.coder) + 4 * (static_cast<size_t>(kind.value_type) + 3 * axes));
}

inline CodedKind KindOf(uint8_t number) {
  CodedKind kind;
  kind.coder = static_cast<LevelCoder>(number % 4);
  kind.value_type = static_cast<ValueType>(number / 4 % 3);
  kind.rank = number / 12 % 8 + size_t{1};
  kind.has_bias = number / 96 != 0;
  return kind;
}

inline size_t ChecksumBytesOf(LevelCoder coder) { return coder == LevelCoder::kGaps ? 4 : 2; }

// Levels of one step: how many are not 0, and their largest magnitude.
struct LevelsHeader {
  uint32_t kept = 0;
  int32_t largest = 0;
  float step = 1.0f;
};

inline Status CheckLevels(uint64_t kept, uint64_t largest, float step, uint64_t elements, bool is_int8, LevelsHeader* header) {
  if (kept > elements || kept > UINT32_MAX - 1) return Status::Problem("coded weight: more kept weights than elements");
  if (largest > (is_int8 ? 128u : static_cast<uint32_t>(kLargestLevel)) || (largest == 0) != (kept == 0)) {
    return Status::Problem("coded weight: the largest level is not within 1 to 32767, of int8 to 128");
  }
  if (!(std::isfinite(step) && step > 0)) return Status::Problem("coded weight: the step is not a positive number");
  *header = {static_cast<uint32_t>(kept), static_cast<int32_t>(largest), step};
  return Status::Ok();
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_CODED_HEADER_H_
