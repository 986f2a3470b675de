// Binary range coder on integers: the same bits on every processor. docs/format.md describes the stream.
//
// A decision is coded with p, the probability of a 1 in units of 2^-16, within 1 and 2^16 - 1. The state is an interval of
// 64 bits; whenever its width falls below 2^32, four bytes leave it, the highest first.
#ifndef GOSSAMER_FORMAT_RANGE_CODER_H_
#define GOSSAMER_FORMAT_RANGE_CODER_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace gossamer {

inline constexpr int kProbabilityBits = 16;
inline constexpr uint32_t kEvenOdds = 1u << (kProbabilityBits - 1);
inline constexpr size_t kRangeCoderWord = 4;   // bytes that leave the state together
inline constexpr size_t kRangeCoderState = 8;  // bytes of the state

class RangeEncoder {
 public:
  bool Code(bool bit, uint32_t probability) {
    const uint64_t ones = (range_ >> kProbabilityBits) * probability;
    if (bit) {
      range_ = ones;
    } else {
      Advance(ones);
      range_ -= ones;
    }
    if (range_ >> 32 == 0) {
      Append(kRangeCoderWord);
      low_ <<= 32;
      range_ <<= 32;
    }
    return bit;
  }

  // The whole stream: what left the state, and the fewest bytes that name a number within the interval.
  std::vector<uint8_t> Finish() {
    for (size_t count = 0; count <= kRangeCoderState; ++count) {
      const uint64_t below = count == kRangeCoderState ? 0 : ~uint64_t{0} >> (8 * count);
      const uint64_t distance = ((low_ + below) & ~below) - low_;
      if (distance >= range_) continue;
      Advance(distance);
      Append(count);
      break;
    }
    return std::move(bytes_);
  }

 private:
  void Advance(uint64_t distance) {
    low_ += distance;
    if (low_ >= distance) return;
    size_t last = bytes_.size();
    while (++bytes_[--last] == 0) {
    }
  }

  void Append(size_t count) {
    for (size_t i = 0; i < count; ++i) bytes_.push_back(static_cast<uint8_t>(low_ >> (56 - 8 * i)));
  }

  std::vector<uint8_t> bytes_;
  uint64_t low_ = 0;
  uint64_t range_ = ~uint64_t{0};
};

// Reads only bytes[0 .. size); behind them it takes zeros, and IsAtEnd tells afterwards.
class RangeDecoder {
 public:
  RangeDecoder(const uint8_t* bytes, size_t size) : bytes_(bytes), size_(size) {
    code_ = Word();
    code_ = code_ << 32 | Word();
  }

  // The bit that is given is that of an encoder, which is written alike.
  bool Code(bool, uint32_t probability) {
    const uint64_t ones = (range_ >> kProbabilityBits) * probability;
    const bool bit = code_ < ones;
    code_ -= bit ? 0 : ones;
    range_ = bit ? ones : range_ - ones;
    if (range_ >> 32 == 0) {
      code_ = code_ << 32 | Word();
      range_ <<= 32;
    }
    return bit;
  }

  // Whether the stream ends where an encoder would have ended it, to within the bytes that it leaves out.
  bool IsAtEnd() const { return read_ <= size_ + kRangeCoderState && size_ <= read_; }

 private:
  uint64_t Word() {
    uint64_t word = 0;
    if (read_ + kRangeCoderWord <= size_) {
      const uint8_t* const at = bytes_ + read_;
      word = uint64_t{at[0]} << 24 | uint64_t{at[1]} << 16 | uint64_t{at[2]} << 8 | at[3];
    } else {
      for (size_t i = 0; i < kRangeCoderWord; ++i) word = word << 8 | (read_ + i < size_ ? bytes_[read_ + i] : 0);
    }
    read_ += kRangeCoderWord;
    return word;
  }

  const uint8_t* bytes_;
  size_t size_;
  size_t read_ = 0;
  uint64_t code_ = 0;
  uint64_t range_ = ~uint64_t{0};
};

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_RANGE_CODER_H_
