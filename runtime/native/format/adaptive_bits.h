// Probabilities that follow the bits they were asked for, in integers.
#ifndef GOSSAMER_FORMAT_ADAPTIVE_BITS_H_
#define GOSSAMER_FORMAT_ADAPTIVE_BITS_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/range_coder.h"

namespace gossamer {

inline constexpr int kCounterBits = 22;
inline constexpr uint32_t kCounterOne = (1u << kCounterBits) - 1;
inline constexpr uint32_t kMostSeen = 255;
// The logit of a probability, in units of 1.5 / 256, is within -kMostLogit and kMostLogit.
inline constexpr int kMostLogit = 2047;

// Tables that both directions and both languages make by the same operations on integers.
struct AdaptiveTables {
  std::array<uint32_t, kMostSeen + 1> rate;                     // of the n-th bit: 2^16 / (n + 2)
  std::array<uint16_t, 2 * kMostLogit + 1> probability;         // by logit
  std::array<int16_t, 1u << kProbabilityBits> logit;            // by probability: the largest whose own is not above it

  static const AdaptiveTables& Get() {
    static const AdaptiveTables tables;
    return tables;
  }

 private:
  AdaptiveTables() {
    for (uint32_t seen = 0; seen <= kMostSeen; ++seen) rate[seen] = (1u << 16) / (seen + 2);
    constexpr uint64_t kOne = uint64_t{1} << 32;
    constexpr uint64_t kStep = 4269875056;  // 2^32 exp(-1.5 / 256)
    uint64_t odds = kOne;                   // exp(-1.5 / 256 x), in units of 2^-32
    for (int x = 0; x <= kMostLogit; ++x) {
      const uint64_t p = std::max<uint64_t>(1, (odds << kProbabilityBits) / (kOne + odds));
      probability[static_cast<size_t>(kMostLogit + x)] = static_cast<uint16_t>((1u << kProbabilityBits) - p);
      probability[static_cast<size_t>(kMostLogit - x)] = static_cast<uint16_t>(p);
      odds = (odds * kStep + kOne / 2) >> 32;
    }
    int x = -kMostLogit;
    for (size_t p = 0; p < logit.size(); ++p) {
      while (x < kMostLogit && probability[static_cast<size_t>(kMostLogit + x + 1)] <= p) ++x;
      logit[p] = static_cast<int16_t>(x);
    }
  }
};

// The probability of a 1 in one context: of 22 bits, beside how many bits it has seen, up to 255.
class Counter {
 public:
  Counter() : Counter(1u << (kCounterBits - 1)) {}
  explicit Counter(uint32_t probability) : state_(probability << kSeenBits) {}

  uint32_t probability() const { return state_ >> (32 - kProbabilityBits); }

  void Update(bool bit, const AdaptiveTables& tables) {
    const uint32_t seen = state_ & kSeenMask;
    const uint32_t old = state_ >> kSeenBits;
    const uint64_t rate = tables.rate[seen];
    const uint32_t now = bit ? old + static_cast<uint32_t>(((kCounterOne - old) * rate) >> 16)
                             : old - static_cast<uint32_t>((old * rate) >> 16);
    state_ = now << kSeenBits | (seen + (seen < kMostSeen));
  }

 private:
  static constexpr int kSeenBits = 32 - kCounterBits;
  static constexpr uint32_t kSeenMask = (1u << kSeenBits) - 1;
  uint32_t state_;
};

// Codes a bit by one counter alone.
template <class Coder>
bool CodeBit(Coder* coder, bool bit, Counter* counter, const AdaptiveTables& tables) {
  bit = coder->Code(bit, std::max(1u, counter->probability()));
  counter->Update(bit, tables);
  return bit;
}

// Logits of several counters, weighed by weights that learn which of them are right (logistic mixing). Weights are in
// units of 2^-16, a set of them for each of some contexts.
template <size_t kInputs>
class Mixer {
 public:
  Mixer(size_t sets, int32_t weight, int32_t rate) : weights_(sets), rate_(rate) {
    for (auto& set : weights_) set.fill(weight);
  }

  // The mixed logit, not yet within the bounds of one.
  int64_t Mix(const std::array<int32_t, kInputs>& logits, size_t set) {
    set_ = &weights_[set];
    int64_t sum = 0;
    for (size_t i = 0; i < kInputs; ++i) sum += int64_t{logits[i]} * (*set_)[i];
    mixed_ = sum >> 16;
    return mixed_;
  }

  void Update(const std::array<int32_t, kInputs>& logits, bool bit, const AdaptiveTables& tables) {
    const int32_t error = (bit ? 1 << kProbabilityBits : 0) - static_cast<int32_t>(ProbabilityOf(mixed_, tables));
    for (size_t i = 0; i < kInputs; ++i) {
      const int32_t step = (logits[i] * error * rate_ + (1 << 17)) >> 18;  // at most 2047 x 2^16 x 16 before the shift
      (*set_)[i] = std::clamp((*set_)[i] + step, -kMostWeight, kMostWeight);
    }
  }

  static uint32_t ProbabilityOf(int64_t logit, const AdaptiveTables& tables) {
    return tables.probability[static_cast<size_t>(std::clamp<int64_t>(logit, -kMostLogit, kMostLogit) + kMostLogit)];
  }

 private:
  static constexpr int32_t kMostWeight = 1 << 20;
  std::vector<std::array<int32_t, kInputs>> weights_;
  std::array<int32_t, kInputs>* set_ = nullptr;
  int64_t mixed_ = 0;
  int32_t rate_;
};

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_ADAPTIVE_BITS_H_
