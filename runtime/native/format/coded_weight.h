// Version 2 of a sparse weight: integer levels of one step, coded by an adaptive range coder. docs/format.md describes it.
//
//   1        version, 2
//   1        kind: coder + 4 (value type + 3 (rank - 1 + 8 if there is a bias)); the coders are LevelCoder
//   numbers  the shape, the number of kept weights, the largest magnitude of a level
//   2 or 4   step, a positive fp32; not of int8, whose levels are the weights
//   numbers  mixing with a grid: the columns of the image that a row is
//   ...      of a bias: its kept numbers, their largest level, its step
//   numbers  gaps: how many groups of rows there are, and of each its rows, its kept weights and the bytes of its stream
//   ...      the stream, or streams: mixing: the levels, then those of the bias; gaps: one a group, then that of the bias
//   2 or 4   CRC-32 of everything before: its lower half, of gaps all of it
//
// A number takes seven bits a byte, the lowest first; every byte but its last one has the highest bit set.
// A step is the upper half of an fp32; if its sign's bit is set the lower half follows.
#ifndef GOSSAMER_FORMAT_CODED_WEIGHT_H_
#define GOSSAMER_FORMAT_CODED_WEIGHT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"

namespace gossamer {

inline constexpr uint8_t kCodedVersion = 2;

enum class LevelCoder : uint8_t { kMixing = 0, kSwappedMixing = 1, kGaps = 2, kGridMixing = 3 };

// Work of the mixing coder follows elements, which cost a file nothing: 2^20 take about 50 ms.
inline constexpr uint64_t kMixingElements = uint64_t{1} << 20;
inline constexpr int32_t kLargestLevel = 32767;

struct Coding {
  LevelCoder coder = LevelCoder::kMixing;
  int64_t grid = 0;                           // 1 to the columns, of the coder with a grid
  uint32_t kept_of_group = uint32_t{1} << 16; // of gaps: a group of rows ends where it has so many
};

// One level for each row. Rows are at most kMixingElements then.
struct BiasLevels {
  const int32_t* levels = nullptr;
  float step = 1.0f;
};

// As DecodeSparseWeight, of a weight whose version is 2. Groups of rows are shared among `threads`.
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseWeight* weight);
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseByteWeight* weight);
// A weight of either version, with the bias that it holds: one number a row, none if there is no bias.
Status DecodeWeightAndBias(const uint8_t* bytes, size_t size, int64_t threads, SparseWeight* weight, std::vector<float>* bias);

// Encodes levels of a magnitude of at most kLargestLevel, of int8 within -128 and 127. The shape and the coding must be
// within the limits of the format; weights of int8 have no bias.
std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, const Coding& coding, const BiasLevels& bias = {});
// With the coder that takes the fewest bytes, of those that are fast enough for a tensor of this size.
std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, int64_t grid, const BiasLevels& bias = {});

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_CODED_WEIGHT_H_
