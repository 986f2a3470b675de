// The coder of small tensors: every position is a decision, whose probability is mixed from those of several contexts.
#ifndef GOSSAMER_FORMAT_MIXING_CODER_H_
#define GOSSAMER_FORMAT_MIXING_CODER_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "format/adaptive_bits.h"
#include "format/level_matrix.h"
#include "format/range_coder.h"

namespace gossamer {

// Codes a matrix in either direction: an encoder reads `matrix.levels`, a decoder writes them. False: levels contradict
// `largest` or `kept`, and the rest is left as it is.
template <class Coder>
class MixingCoder {
 public:
  MixingCoder(Coder* coder, LevelMatrix* matrix)
      : coder_(coder),
        matrix_(*matrix),
        shift_(matrix->grid > 0 ? 2 * matrix->grid + kReach : kPadding),
        row_length_(static_cast<size_t>(matrix->columns + 2 * shift_)),
        levels_(2 * row_length_),
        column_kept_(row_length_),
        column_sum_(static_cast<size_t>(matrix->columns)),
        column_sign_(static_cast<size_t>(matrix->columns)),
        channel_kept_(static_cast<size_t>(matrix->columns / matrix->places)),
        row_signs_(static_cast<size_t>(matrix->rows)) {
    const uint64_t elements = static_cast<uint64_t>(matrix->rows) * static_cast<uint64_t>(matrix->columns);
    const uint64_t density = ((uint64_t{matrix->kept} + 1) << kCounterBits) / (elements + 2);
    const Counter counter(static_cast<uint32_t>(std::clamp<uint64_t>(density, 1, kCounterOne)));
    const size_t sizes[kKeptInputs] = {kBuckets * kBuckets, 256, kBuckets * kBuckets, kBuckets * kBuckets,
                                       16 * kBuckets * kBuckets};
    for (size_t i = 0; i < kKeptInputs; ++i) kept_contexts_[i].assign(sizes[i], counter);
  }

  bool Run() {
    uint32_t kept = 0;
    for (row_ = 0; row_ < matrix_.rows; ++row_) {
      std::swap(now_, before_);
      std::fill_n(At(now_, 0), matrix_.columns, 0);
      row_kept_ = row_sum_ = row_sign_ = 0;
      for (column_ = 0; column_ < matrix_.columns; ++column_) {
        if (column_ % matrix_.places == 0) kernel_kept_ = 0;
        int32_t& level = matrix_.levels[static_cast<size_t>(row_ * matrix_.columns + column_)];
        if (!CodeKept(level != 0)) continue;
        if (kept++ == matrix_.kept) return false;
        const bool negative = CodeSign(level < 0);
        const int32_t magnitude = CodeMagnitude(std::abs(level));
        if (magnitude > matrix_.largest) return false;
        level = negative ? -magnitude : magnitude;
        Add(level);
      }
    }
    return kept == matrix_.kept;
  }

 private:
  static constexpr int64_t kReach = 4;     // columns that a window on the grid reaches to a side, and one more
  static constexpr int64_t kPadding = 13;  // the same of a window without a grid
  static constexpr int32_t kWindow = 12;   // columns
  static constexpr size_t kBuckets = 32;
  static constexpr int32_t kUnary = 20;        // magnitudes below are counted
  static constexpr int32_t kMostOctave = 15;   // of what is left of larger ones
  static constexpr int32_t kExactBits = 3;
  static constexpr size_t kKeptInputs = 5, kSignInputs = 4, kMagnitudeInputs = 5;

  // 0 to 31: the first four numbers by themselves, then two to an octave.
  static size_t Bucket(int32_t count) {
    if (count < 4) return static_cast<size_t>(count);
    const int32_t octave = 31 - __builtin_clz(static_cast<uint32_t>(count));
    return static_cast<size_t>(std::min(2 * octave + (count >> (octave - 1) & 1), int32_t{kBuckets - 1}));
  }

  int32_t* At(size_t line, int64_t column) { return levels_.data() + line * row_length_ + shift_ + column; }
  int32_t* ColumnKept(int64_t column) { return column_kept_.data() + shift_ + column; }

  // How many of columns [first, last] beside this one, of this row, are kept.
  int32_t KeptWithin(int64_t first, int64_t last) {
    const int32_t* const level = At(now_, column_);
    int32_t count = 0;
    for (int64_t i = first; i <= last; ++i) count += level[i] != 0;
    return count;
  }

  bool CodeKept(bool kept) {
    const int64_t grid = matrix_.grid;
    const int32_t* const left = At(now_, column_);
    const int32_t* const above = At(before_, column_);
    const int32_t* const counts = ColumnKept(column_);
    size_t neighbours = (left[-1] != 0) | (left[-2] != 0) << 1 | (above[0] != 0) << 5 | (above[1] != 0) << 6 |
                        (above[-1] != 0) << 7;
    int32_t around = counts[-1] + counts[1], window;
    if (grid > 0) {
      neighbours |= static_cast<size_t>((left[-grid] != 0) << 2 | (left[1 - grid] != 0) << 3 | (left[-1 - grid] != 0) << 4);
      for (int64_t i = -1; i <= 1; ++i) around += counts[i - grid] + counts[i + grid];
      window = KeptWithin(-3, -1) + KeptWithin(-grid - 3, -grid + 3) + KeptWithin(-2 * grid - 3, -2 * grid + 3);
    } else {
      neighbours |= static_cast<size_t>((left[-3] != 0) << 2 | (above[-2] != 0) << 3 | (above[2] != 0) << 4);
      around += counts[-2] + counts[2];
      window = KeptWithin(-kWindow, -1);
    }
    const size_t in_row = Bucket(row_kept_), in_column = Bucket(counts[0]), near = static_cast<size_t>(window);
    const size_t in_channel = Bucket(channel_kept_[static_cast<size_t>(column_ / matrix_.places)]);
    const size_t in_kernel = static_cast<size_t>(std::min(kernel_kept_, 15));
    const std::array<Counter*, kKeptInputs> counters = {
        &kept_contexts_[0][in_row * kBuckets + in_column],
        &kept_contexts_[1][neighbours],
        &kept_contexts_[2][near * kBuckets + Bucket(around)],
        &kept_contexts_[3][near * kBuckets + in_row],
        &kept_contexts_[4][(in_kernel * kBuckets + in_channel) * kBuckets + in_column],
    };
    std::array<int32_t, kKeptInputs> logits;
    for (size_t i = 0; i < kKeptInputs; ++i) logits[i] = tables_.logit[counters[i]->probability()];
    const int64_t by_row = kept_by_row_.Mix(logits, Bucket(static_cast<int32_t>(row_)));
    const int64_t by_window = kept_by_window_.Mix(logits, near);
    kept = coder_->Code(kept, Mixer<kKeptInputs>::ProbabilityOf((by_row + by_window) >> 1, tables_));
    kept_by_row_.Update(logits, kept, tables_);
    kept_by_window_.Update(logits, kept, tables_);
    for (Counter* counter : counters) counter->Update(kept, tables_);
    return kept;
  }

  template <size_t kInputs>
  bool CodeMixed(bool bit, const std::array<Counter*, kInputs>& counters, Mixer<kInputs>* mixer, size_t set) {
    std::array<int32_t, kInputs> logits;
    for (size_t i = 0; i < kInputs; ++i) logits[i] = tables_.logit[counters[i]->probability()];
    bit = coder_->Code(bit, Mixer<kInputs>::ProbabilityOf(mixer->Mix(logits, set), tables_));
    mixer->Update(logits, bit, tables_);
    for (Counter* counter : counters) counter->Update(bit, tables_);
    return bit;
  }

  bool CodeSign(bool negative) {
    const auto sign = [](int32_t level) { return static_cast<size_t>(level > 0 ? 1 : level < 0 ? 2 : 0); };
    const auto bounded = [](int32_t sum) { return static_cast<size_t>(std::clamp(sum, -4, 4) + 4); };
    const int64_t grid = matrix_.grid;
    const int32_t* const left = At(now_, column_);
    const size_t beside = sign(left[-1]), above = sign(grid > 0 ? left[-grid] : left[-2]);
    const size_t corners = grid > 0 ? 3 * sign(left[-grid - 1]) + sign(left[1 - grid]) : 0;
    const size_t row_before = sign(*At(before_, column_));
    return CodeMixed<kSignInputs>(negative,
                                  {
                                      &sign_contexts_[0][beside * 9 + above * 3 + row_before],
                                      &sign_contexts_[1][bounded(row_sign_) * 9 + bounded(column_sign())],
                                      &row_signs_[static_cast<size_t>(row_)],
                                      &sign_contexts_[2][corners * 9 + above * 3 + beside],
                                  },
                                  &sign_mixer_, 0);
  }

  int32_t CodeMagnitude(int32_t magnitude) {
    const int64_t grid = matrix_.grid;
    const int32_t* const left = At(now_, column_);
    const int32_t in_column = *ColumnKept(column_);
    const auto doubled_mean = [](int32_t sum, int32_t count) {
      return static_cast<size_t>(count == 0 ? 0 : std::min(2 * sum / count, 15));
    };
    const size_t row_mean = doubled_mean(row_sum_, row_kept_);
    const size_t column_mean = doubled_mean(column_sum_[static_cast<size_t>(column_)], in_column);
    const int32_t beside = std::max(std::abs(left[-1]), grid > 0 ? std::abs(left[-grid]) : 0);
    for (int32_t reached = 1; reached < matrix_.largest; ++reached) {
      if (reached == kUnary) return kUnary + CodeRest(magnitude - kUnary);
      const size_t step = static_cast<size_t>(reached), first = 16 * step;
      const bool more = CodeMixed<kMagnitudeInputs>(magnitude > reached,
                                                    {
                                                        &magnitude_contexts_[0][step],
                                                        &magnitude_contexts_[1][first + row_mean],
                                                        &magnitude_contexts_[2][first + column_mean],
                                                        &magnitude_contexts_[3][first + static_cast<size_t>(std::min(beside, 15))],
                                                        &magnitude_contexts_[4][first + Bucket(row_kept_) / 2],
                                                    },
                                                    &magnitude_mixer_, step);
      if (!more) return reached;
    }
    return matrix_.largest;
  }

  // Of rest + 1 the number of bits behind the first one, then those bits: the first three adaptive, the others as they are.
  int32_t CodeRest(int32_t rest) {
    const int32_t number = rest + 1;
    int32_t octave = 0;
    while (octave < kMostOctave && CodeBit(coder_, number >> (octave + 1) > 0, &octaves_[octave], tables_)) ++octave;
    int32_t got = 1;
    for (int32_t bit = octave - 1; bit >= 0; --bit) {
      const bool wanted = number >> bit & 1;
      const bool is_exact = octave - 1 - bit < kExactBits;
      got = 2 * got + (is_exact ? CodeBit(coder_, wanted, &exact_[8 * octave + got], tables_)
                                : coder_->Code(wanted, kEvenOdds));
    }
    return got - 1;
  }

  int32_t& column_sign() { return column_sign_[static_cast<size_t>(column_)]; }

  void Add(int32_t level) {
    *At(now_, column_) = level;
    const int32_t magnitude = std::abs(level), sign = level < 0 ? -1 : 1;
    row_kept_ += 1;
    row_sum_ += magnitude;
    row_sign_ += sign;
    *ColumnKept(column_) += 1;
    column_sum_[static_cast<size_t>(column_)] += magnitude;
    column_sign() += sign;
    channel_kept_[static_cast<size_t>(column_ / matrix_.places)] += 1;
    kernel_kept_ += 1;
  }

  const AdaptiveTables& tables_ = AdaptiveTables::Get();
  Coder* coder_;
  LevelMatrix& matrix_;
  // This row and the one before, with zeros on both sides where windows reach beyond them.
  int64_t shift_;
  size_t row_length_;
  std::vector<int32_t> levels_;
  size_t now_ = 0, before_ = 1;
  std::vector<int32_t> column_kept_, column_sum_, column_sign_, channel_kept_;
  int64_t row_ = 0, column_ = 0;
  int32_t row_kept_ = 0, row_sum_ = 0, row_sign_ = 0, kernel_kept_ = 0;

  std::array<std::vector<Counter>, kKeptInputs> kept_contexts_;
  Mixer<kKeptInputs> kept_by_row_{kBuckets, 11796, 4}, kept_by_window_{kBuckets, 11796, 4};
  std::array<std::array<Counter, 81>, 3> sign_contexts_;
  std::vector<Counter> row_signs_;
  Mixer<kSignInputs> sign_mixer_{1, 13107, 16};
  std::array<std::array<Counter, 16 * kUnary>, kMagnitudeInputs> magnitude_contexts_;
  Mixer<kMagnitudeInputs> magnitude_mixer_{kUnary, 13107, 10};
  std::array<Counter, kMostOctave> octaves_;
  std::array<Counter, 8 * (kMostOctave + 1)> exact_;
};

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_MIXING_CODER_H_
