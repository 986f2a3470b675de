#include "kernels/quantised_weight.h"

#include <algorithm>
#include <cstdlib>

namespace gossamer {
namespace {

// What the magnitudes of a pair's weights may add up to. Products are then within 16 bits: with inputs of 0 to 255 those
// of one pair, with inputs of -128 to 127, on ARM, those of the pairs of any two quads together.
#if defined(__aarch64__)
constexpr int kPairLimit = 127;
#else
constexpr int kPairLimit = 128;
#endif

bool MustBeSplit(const Quad& quad) {
#if defined(__aarch64__)
  for (int64_t i = 0; i < kQuad; i += 2) {
    if (std::abs(quad.weight[i]) + std::abs(quad.weight[i + 1]) > kPairLimit) return true;
  }
  return false;
#else
  return PairsOverflow(quad);
#endif
}

// Of each pair as much as is within the limit, which is taken off.
Quad TakeWhatFits(Quad* quad) {
  Quad taken;
  for (int64_t i = 0; i < kQuad; i += 2) {
    int left = kPairLimit;
    for (int64_t j = i; j < i + 2; ++j) {
      const int part = std::clamp<int>(quad->weight[j], -left, left);
      left -= std::abs(part);
      taken.weight[j] = static_cast<int8_t>(part);
      quad->weight[j] = static_cast<int8_t>(quad->weight[j] - taken.weight[j]);
    }
  }
  return taken;
}

// Builds the quads of one row: weights come in the order of their columns, so those of four channels come one after the
// other, each channel with all of its taps.
class RowOfQuads {
 public:
  RowOfQuads(int64_t taps, bool split_pairs, QuadWeight* quads)
      : split_pairs_(split_pairs), quads_(quads), at_tap_(static_cast<size_t>(taps)), used_(at_tap_.size(), false) {}

  void Add(int64_t channel, int64_t tap, int8_t weight) {
    if (channel / kQuad != quad_) Finish();
    quad_ = channel / kQuad;
    const size_t t = static_cast<size_t>(tap);
    if (!used_[t]) taps_.push_back(static_cast<uint32_t>(tap));
    used_[t] = true;
    at_tap_[t].weight[channel % kQuad] = weight;
  }

  void Finish() {
    std::sort(taps_.begin(), taps_.end());
    for (const uint32_t tap : taps_) {
      const uint32_t column = static_cast<uint32_t>(quad_) * static_cast<uint32_t>(at_tap_.size()) + tap;
      Quad quad = at_tap_[tap];
      while (split_pairs_ && MustBeSplit(quad)) Push(column, TakeWhatFits(&quad));
      Push(column, quad);
      at_tap_[tap] = Quad{};
      used_[tap] = false;
    }
    taps_.clear();
  }

 private:
  void Push(uint32_t column, const Quad& quad) {
    quads_->column.push_back(column);
    quads_->value.push_back(quad);
  }

  bool split_pairs_;
  QuadWeight* quads_;
  int64_t quad_ = 0;
  std::vector<Quad> at_tap_;
  std::vector<bool> used_;
  std::vector<uint32_t> taps_;  // of the present quad, that have a weight
};

}  // namespace

ConvolutionShape QuadShape(const ConvolutionShape& shape) {
  ConvolutionShape quads = shape;
  const int64_t inputs = shape.input_channels / shape.groups;
  const int64_t outputs = shape.output_channels / shape.groups;
  int64_t joined = 1;
  while (joined < kQuad && (joined * inputs % kQuad != 0 || joined * outputs % kQuad != 0)) joined *= 2;
  quads.groups = shape.groups % joined == 0 ? shape.groups / joined : 1;
  if (shape.groups == 1) quads.groups = 1;
  quads.input_channels = QuadsOf(shape.input_channels);
  return quads;
}

bool PairsOverflow(const Quad& quad) {
  for (int64_t i = 0; i < kQuad; i += 2) {
    const int32_t a = quad.weight[i], b = quad.weight[i + 1];
#if defined(__aarch64__)
    // Inputs are -128 to 127, and the sum of two products is within 16 bits but for this one.
    if (a == -128 && b == -128) return true;
#else
    // Inputs are 0 to 255: of weights of one sign, at most 128 times 255 is within 16 bits.
    if (std::max(a, 0) + std::max(b, 0) > 128 || std::min(a, 0) + std::min(b, 0) < -128) return true;
#endif
  }
  return false;
}

QuadWeight QuadsFromWeight(const ConvolutionShape& shape, const SparseByteWeight& weight, bool split_pairs) {
  const ConvolutionShape quad_shape = QuadShape(shape);
  const int64_t taps = shape.taps();
  const int64_t channels = shape.input_channels / shape.groups;
  const int64_t rows = shape.output_channels / shape.groups;
  const int64_t joined = shape.groups / quad_shape.groups;
  QuadWeight quads;
  quads.rows = weight.rows;
  quads.columns = quad_shape.input_channels / quad_shape.groups * taps;
  quads.shape = {quads.rows, quads.columns / taps, shape.kernel_height, shape.kernel_width};
  quads.row_start.push_back(0);
  RowOfQuads row_of_quads(taps, split_pairs, &quads);
  for (int64_t row = 0; row < weight.rows; ++row) {
    const size_t r = static_cast<size_t>(row);
    const int64_t first_channel = row / rows % joined * channels;
    for (uint32_t i = weight.row_start[r]; i < weight.row_start[r + 1]; ++i) {
      if (weight.value[i] == 0) continue;
      row_of_quads.Add(first_channel + weight.column[i] / taps, weight.column[i] % taps, weight.value[i]);
    }
    row_of_quads.Finish();
    quads.row_start.push_back(static_cast<uint32_t>(quads.value.size()));
  }
  return quads;
}

std::vector<int64_t> LargestSums(const SparseByteWeight& weight, const int32_t* bias) {
  std::vector<int64_t> largest;
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    int64_t most = bias == nullptr ? 0 : std::abs(static_cast<int64_t>(bias[row]));
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) most += 255 * std::abs(weight.value[i]);
    largest.push_back(most);
  }
  return largest;
}

Status CheckSums(const SparseByteWeight& weight, const int32_t* bias) {
  for (const int64_t most : LargestSums(weight, bias)) {
    if (most > INT32_MAX) return Status::Problem("quantised op: the sums of an output channel do not fit into 32 bits");
  }
  return Status::Ok();
}

}  // namespace gossamer
