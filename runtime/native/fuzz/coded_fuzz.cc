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
#include "format/coded_weight.h"
#include "format/header.h"
#include "format/little_endian.h"

namespace gossamer {
namespace {

// A mixing coder's work follows elements: more of them would only be slow.
constexpr uint64_t kMostElements = 1 << 12;

void AppendNumber(uint64_t number, std::vector<uint8_t>* bytes) {
  for (; number > 127; number >>= 7) bytes->push_back(static_cast<uint8_t>(number | 128));
  bytes->push_back(static_cast<uint8_t>(number));
}

// Whether the shape of a weight, whatever else it is, has few elements. What is no shape has none.
bool HasFewElements(const std::vector<uint8_t>& bytes) {
  uint64_t elements = 1;
  size_t at = 8;
  for (int axis = 0; axis < (bytes.size() > 7 ? bytes[7] : 0); ++axis) {
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
  const uint8_t coder = chosen[0] % 3, type = chosen[0] / 3 % 3;
  // Mostly few elements: streams a second count.
  const uint64_t most = chosen[0] < 250 ? 4 : 16;
  const uint64_t rows = 1 + chosen[1] % (2 * most), channels = 1 + chosen[2] % most, places = chosen[2] / 64 + 1;
  const uint64_t elements = rows * channels * places;
  std::vector<uint8_t> bytes(kMagic, kMagic + sizeof(kMagic));
  bytes.insert(bytes.end(), {kCodedVersion, coder, type, 3});
  for (const uint64_t extent : {rows, channels, places}) AppendNumber(extent, &bytes);
  const uint64_t kept = 1 + ReadLittleEndian(chosen + 3, 2) % elements;
  AppendNumber(kept, &bytes);
  AppendNumber(1 + chosen[5] % (type == 2 ? 128u : 255u) * (chosen[6] % 8 == 0 && type != 2 ? 127u : 1u), &bytes);
  if (type != 2) AppendLittleEndian(0x3F800000u, 4, &bytes);
  if (coder != 2) {
    AppendNumber(chosen[7] % (rows * channels * places / (coder == 0 ? rows : channels) + 1), &bytes);
  } else if (chosen[7] % 2 == 0 || rows == 1 || kept == 1) {
    for (const uint64_t number : {uint64_t{1}, rows, kept, uint64_t{size}}) AppendNumber(number, &bytes);
  } else {
    const uint64_t first = chosen[7] % rows, of_first = chosen[6] % kept, part = size * (chosen[5] % 8) / 8;
    for (const uint64_t number : {uint64_t{2}, first, of_first, part}) AppendNumber(number, &bytes);
    for (const uint64_t number : {rows - first, kept - of_first, size - part}) AppendNumber(number, &bytes);
  }
  bytes.insert(bytes.end(), data, data + size);
  bytes.resize(bytes.size() + kChecksumBytes);
  return bytes;
}

template <class Value>
bool AreSame(const SparseMatrix<Value>& one, const SparseMatrix<Value>& other) {
  return one.shape == other.shape && one.row_start == other.row_start && one.column == other.column &&
         one.value == other.value;
}

// Decodes; what is a weight is encoded again as it was, with a step of 1.
template <class Value>
void Decode(const std::vector<uint8_t>& bytes, bool may_encode) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  SparseMatrix<Value> weight;
  if (!DecodeSparseWeight(exact.get(), bytes.size(), &weight).ok()) return;
  if (weight.row_start.size() != static_cast<size_t>(weight.rows) + 1 || weight.row_start.back() != weight.kept() ||
      weight.column.size() != weight.kept()) {
    std::abort();
  }
  if (!may_encode || bytes[6] == static_cast<uint8_t>(ValueType::kFloat16)) return;
  std::vector<int32_t> levels(static_cast<size_t>(weight.rows * weight.columns));
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      levels[row * static_cast<size_t>(weight.columns) + weight.column[i]] = static_cast<int32_t>(weight.value[i]);
    }
  }
  const Coding coding{static_cast<LevelCoder>(bytes[5]), 0, 16};
  const std::vector<uint8_t> again =
      EncodeCodedWeight(weight.shape, levels.data(), static_cast<ValueType>(bytes[6]), 1.0f, coding);
  SparseMatrix<Value> same;
  if (!DecodeSparseWeight(again.data(), again.size(), &same).ok() || !AreSame(weight, same)) std::abort();
}

void FuzzCodedWeight(const uint8_t* data, size_t size) {
  const bool is_raw = data[0] % 8 == 0;
  std::vector<uint8_t> bytes;
  if (is_raw) {
    bytes.assign(kMagic, kMagic + sizeof(kMagic));
    bytes.push_back(kCodedVersion);
    bytes.insert(bytes.end(), data + 1, data + size);
    if (!HasFewElements(bytes)) return;
  } else {
    bytes = WithHeader(data + 1, size - 1);
  }
  // A fuzzer does not guess checksums.
  const uint32_t checksum = Checksum(bytes.data(), bytes.size() - kChecksumBytes);
  for (size_t i = 0; i < kChecksumBytes; ++i) {
    bytes[bytes.size() - kChecksumBytes + i] = static_cast<uint8_t>(checksum >> (8 * i));
  }
  if (is_raw || bytes[6] != static_cast<uint8_t>(ValueType::kInt8)) Decode<float>(bytes, !is_raw);
  if (is_raw || bytes[6] == static_cast<uint8_t>(ValueType::kInt8)) Decode<int8_t>(bytes, !is_raw);
}

}  // namespace
}  // namespace gossamer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= 16) gossamer::FuzzCodedWeight(data, size);
  return 0;
}
