// Version 2 of a sparse weight: integer levels of one step, coded by an adaptive range coder. docs/format.md describes it.
//
//   offset  size     field
//   0       4        "GSPW"
//   4       1        version, 2
//   5       1        coder: 0 mixing, 1 mixing with the first two axes swapped, 2 gaps
//   6       1        value type: 0 fp32, 1 fp16, 2 int8
//   7       1        rank, 1 to 8
//   8       numbers  the shape, the number of kept weights, the largest magnitude of a level
//   ...     4        step, fp32; not of int8, whose levels are the weights
//   ...     numbers  mixing: the columns of the image that a row is, or 0; gaps: how many groups of rows there are, and of
//                    each its rows, its kept weights and the bytes of its stream
//   ...     ...      the stream, or streams
//   end-4   4        CRC-32 of everything before
//
// A number takes seven bits a byte, the lowest first; every byte but its last one has the highest bit set.
#ifndef GOSSAMER_FORMAT_CODED_WEIGHT_H_
#define GOSSAMER_FORMAT_CODED_WEIGHT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"

namespace gossamer {

inline constexpr uint8_t kCodedVersion = 2;

enum class LevelCoder : uint8_t { kMixing = 0, kSwappedMixing = 1, kGaps = 2 };

// Work of the mixing coder follows elements, which cost a file nothing: 2^20 take about 50 ms.
inline constexpr uint64_t kMixingElements = uint64_t{1} << 20;
inline constexpr int32_t kLargestLevel = 32767;

struct Coding {
  LevelCoder coder = LevelCoder::kMixing;
  int64_t grid = 0;                           // of the mixing coder
  uint32_t kept_of_group = uint32_t{1} << 16; // of gaps: a group of rows ends where it has so many
};

// As DecodeSparseWeight, of a weight whose version is 2. Groups of rows are shared among `threads`.
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseWeight* weight);
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseByteWeight* weight);

// Encodes levels of a magnitude of at most kLargestLevel, of int8 within -128 and 127. The shape and the coding must be
// within the limits of the format.
std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, const Coding& coding);
// With the coder that takes the fewest bytes, of those that are fast enough for a tensor of this size.
std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, int64_t grid);

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_CODED_WEIGHT_H_
