// The coder of large tensors: its work follows rows and kept weights, not the zeros between them.
//
// A row is the number of its kept weights, then of each the zeros before it, its sign and its magnitude.
#ifndef GOSSAMER_FORMAT_GAP_CODER_H_
#define GOSSAMER_FORMAT_GAP_CODER_H_

#include <array>
#include <cstdint>

#include "format/adaptive_bits.h"
#include "format/range_coder.h"

namespace gossamer {

inline constexpr uint32_t kGapColumns = 1u << 28;  // a row has fewer

// Numbers below 2^28: the first 16 by themselves, then two to an octave, as the leaf of a tree of 64 whose branches are
// adaptive; what is left of a number is written as it is.
class NumberTree {
 public:
  template <class Coder>
  uint32_t Code(Coder* coder, uint32_t number, const AdaptiveTables& tables) {
    const uint32_t wanted = LeafOf(number);
    uint32_t node = 1;
    for (int depth = 5; depth >= 0; --depth) {
      node = 2 * node + CodeBit(coder, wanted >> depth & 1, &counters_[node], tables);
    }
    const uint32_t leaf = node - kLeaves;
    if (leaf < kSingle) return leaf;
    const uint32_t octave = (leaf - kSingle) / 2 + 4;
    uint32_t got = 2 + (leaf & 1);
    for (uint32_t bit = octave - 1; bit-- > 0;) got = 2 * got + coder->Code(number >> bit & 1, kEvenOdds);
    return got;
  }

 private:
  static constexpr uint32_t kLeaves = 64, kSingle = 16;

  static uint32_t LeafOf(uint32_t number) {
    if (number < kSingle) return number;
    const uint32_t octave = 31 - static_cast<uint32_t>(__builtin_clz(number));
    return kSingle + 2 * (octave - 4) + (number >> (octave - 1) & 1);
  }

  std::array<Counter, kLeaves> counters_;
};

// log2 in quarters, cut off; of 1 and more.
inline uint32_t QuarterLog(uint32_t number) {
  const uint32_t octave = 31 - static_cast<uint32_t>(__builtin_clz(number));
  return 4 * octave + static_cast<uint32_t>((uint64_t{number} << 2 >> octave) & 3);
}

class GapCoder {
 public:
  template <class Coder>
  uint32_t Count(Coder* coder, uint32_t kept) {
    NumberTree& tree = counts_[previous_ == 0 ? 0 : 32 - static_cast<uint32_t>(__builtin_clz(previous_))];
    previous_ = tree.Code(coder, kept, tables_);
    return previous_;
  }

  // The zeros before the next of `kept` weights, 1 or more, that are left among so many positions of a row.
  template <class Coder>
  uint32_t Gap(Coder* coder, uint32_t gap, uint32_t positions, uint32_t kept) {
    if (kept == positions) return 0;
    const uint32_t expected = std::min(QuarterLog(positions) - QuarterLog(kept), kGapClasses - 1);
    return gaps_[expected].Code(coder, gap, tables_);
  }

  template <class Coder>
  bool Sign(Coder* coder, bool negative) {
    return coder->Code(negative, kEvenOdds);
  }

  template <class Coder>
  uint32_t Magnitude(Coder* coder, uint32_t magnitude) {
    return 1 + magnitudes_.Code(coder, magnitude - 1, tables_);
  }

 private:
  static constexpr uint32_t kGapClasses = 64;
  const AdaptiveTables& tables_ = AdaptiveTables::Get();
  std::array<NumberTree, 29> counts_;  // by the length of the number before
  std::array<NumberTree, kGapClasses> gaps_;
  NumberTree magnitudes_;
  uint32_t previous_ = 0;
};

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_GAP_CODER_H_
