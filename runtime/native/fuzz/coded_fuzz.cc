// libFuzzer target: streams of coded weights that somebody else wrote, through the decoder.
//
// The first byte of an input says how much of it is taken as it comes: all behind the version, or the streams alone,
// behind a header that fits them, without which hardly any input would come as far as the coders. What decodes is encoded
// again and must decode to the same.
//
//   coded_fuzz CORPUS -runs=1000000
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "format/checksum.h"
#include "format/coded_header.h"
#include "format/coded_weight.h"
#include "format/header.h"
#include "format/little_endian.h"

namespace gossamer {
namespace {

// A mixing coder's work follows elements: more of them would only be slow.
constexpr uint64_t kMostElements = 1 << 9;

// Whether the shape of a weight, whatever else it is, has few elements. What is no shape has none.
bool HasFewElements(const std::vector<uint8_t>& bytes) {
  uint64_t elements = 1;
  size_t at = 2;
  for (size_t axis = 0; axis < KindOf(bytes[1]).rank; ++axis) {
    uint64_t extent = 0;
    for (int shift = 0; shift < 63 && at < bytes.size(); shift += 7) {
      extent |= uint64_t{bytes[at] & 127u} << shift;
      if (bytes[at++] < 128) break;
    }
    if (extent > kMostElements) return false;
    elements *= std::max<uint64_t>(extent, 1);
    if (elements > kMostElements) return false;
  }
  return true;
}

// A weight with the streams data[0 .. size), whose header the bytes before them choose.
std::vector<uint8_t> WithHeader(const uint8_t* data, size_t size) {
  const uint8_t chosen[8] = {data[0], data[1], data[2], data[3], data[4], data[5], data[6], data[7]};
  data += sizeof(chosen);
  size -= sizeof(chosen);
  CodedKind kind;
  kind.coder = static_cast<LevelCoder>(chosen[0] % 4);
  kind.value_type = static_cast<ValueType>(chosen[0] / 4 % 3);
  kind.rank = 3;
  const bool is_int8 = kind.value_type == ValueType::kInt8, is_swapped = kind.coder == LevelCoder::kSwappedMixing;
  kind.has_bias = !is_int8 && chosen[0] / 12 % 2 == 1;
  // Mostly few elements: streams a second count.
  const uint64_t most = chosen[0] < 250 ? 4 : 16;
  const uint64_t rows = 1 + chosen[1] % (2 * most), channels = 1 + chosen[2] % most, places = chosen[2] / 64 + 1;
  const uint64_t elements = rows * channels * places;
  std::vector<uint8_t> bytes = {kCodedVersion, NumberOf(kind)};
  for (const uint64_t extent : {rows, channels, places}) AppendNumber(extent, &bytes);
  const uint64_t kept = 1 + ReadLittleEndian(chosen + 3, 2) % elements;
  AppendNumber(kept, &bytes);
  AppendNumber(1 + chosen[5] % (is_int8 ? 128u : 255u) * (chosen[6] % 8 == 0 && !is_int8 ? 127u : 1u), &bytes);
  if (!is_int8) AppendStep(1.0f, &bytes);
  if (kind.coder == LevelCoder::kGridMixing) AppendNumber(1 + chosen[7] % (elements / (is_swapped ? channels : rows)), &bytes);
  if (kind.has_bias) {
    const uint64_t of_bias = chosen[6] % (rows + 1);
    AppendNumber(of_bias, &bytes);
    AppendNumber(of_bias == 0 ? 0 : 1 + chosen[5], &bytes);
    AppendStep(1.0f, &bytes);
  }
  if (kind.coder == LevelCoder::kGaps) {
    // Behind the groups is the bias.
    const uint64_t of_groups = kind.has_bias ? size * (chosen[4] % 8) / 8 : size;
    if (chosen[7] % 2 == 0 || rows == 1 || kept == 1) {
      for (const uint64_t number : {uint64_t{1}, rows, kept, of_groups}) AppendNumber(number, &bytes);
    } else {
      const uint64_t first = chosen[7] % rows, of_first = chosen[6] % kept, part = of_groups * (chosen[5] % 8) / 8;
      for (const uint64_t number : {uint64_t{2}, first, of_first, part}) AppendNumber(number, &bytes);
      for (const uint64_t number : {rows - first, kept - of_first, of_groups - part}) AppendNumber(number, &bytes);
    }
  }
  bytes.insert(bytes.end(), data, data + size);
  bytes.resize(bytes.size() + ChecksumBytesOf(kind.coder));
  return bytes;
}

template <class Value>
bool AreSame(const SparseMatrix<Value>& one, const SparseMatrix<Value>& other) {
  return one.shape == other.shape && one.row_start == other.row_start && one.column == other.column &&
         one.value == other.value;
}

Status DecodeWithBias(const uint8_t* bytes, size_t size, SparseWeight* weight, std::vector<float>* bias) {
  return DecodeWeightAndBias(bytes, size, 1, weight, bias);
}
Status DecodeWithBias(const uint8_t* bytes, size_t size, SparseByteWeight* weight, std::vector<float>*) {
  return DecodeSparseWeight(bytes, size, weight);
}

// Decodes; what is a weight is encoded again as it was, with steps of 1.
template <class Value>
void Decode(const std::vector<uint8_t>& bytes, bool may_encode) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  SparseMatrix<Value> weight;
  std::vector<float> bias;
  if (!DecodeWithBias(exact.get(), bytes.size(), &weight, &bias).ok()) return;
  if (weight.row_start.size() != static_cast<size_t>(weight.rows) + 1 || weight.row_start.back() != weight.kept() ||
      weight.column.size() != weight.kept() || (!bias.empty() && bias.size() != static_cast<size_t>(weight.rows))) {
    std::abort();
  }
  const CodedKind kind = KindOf(bytes[1]);
  if (!may_encode || kind.value_type == ValueType::kFloat16) return;
  std::vector<int32_t> levels(static_cast<size_t>(weight.rows * weight.columns));
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      levels[row * static_cast<size_t>(weight.columns) + weight.column[i]] = static_cast<int32_t>(weight.value[i]);
    }
  }
  const std::vector<int32_t> of_bias(bias.begin(), bias.end());
  const Coding coding{kind.coder, 1, 16};
  const std::vector<uint8_t> again = EncodeCodedWeight(weight.shape, levels.data(), kind.value_type, 1.0f, coding,
                                                       {bias.empty() ? nullptr : of_bias.data(), 1.0f});
  SparseMatrix<Value> same;
  std::vector<float> same_bias;
  const bool is_read = DecodeWithBias(again.data(), again.size(), &same, &same_bias).ok();
  if (!is_read || !AreSame(weight, same) || bias != same_bias) std::abort();
}

void FuzzCodedWeight(const uint8_t* data, size_t size) {
  const bool is_raw = data[0] % 8 == 0;
  std::vector<uint8_t> bytes;
  if (is_raw) {
    bytes.push_back(kCodedVersion);
    bytes.insert(bytes.end(), data + 1, data + size);
    if (!HasFewElements(bytes)) return;
  } else {
    bytes = WithHeader(data + 1, size - 1);
  }
  // A fuzzer does not guess checksums.
  const CodedKind kind = KindOf(bytes[1]);
  const size_t end = bytes.size() - ChecksumBytesOf(kind.coder);
  const uint32_t checksum = Checksum(bytes.data(), end);
  for (size_t i = end; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(checksum >> (8 * (i - end)));
  if (is_raw || kind.value_type != ValueType::kInt8) Decode<float>(bytes, !is_raw);
  if (is_raw || kind.value_type == ValueType::kInt8) Decode<int8_t>(bytes, !is_raw);
}

}  // namespace
}  // namespace gossamer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= 16) gossamer::FuzzCodedWeight(data, size);
  return 0;
}
