#include "format/coded_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

#include "format/checksum.h"
#include "format/gap_coder.h"
#include "format/half.h"
#include "format/header.h"
#include "format/little_endian.h"
#include "format/mixing_coder.h"

namespace gossamer {
namespace {

constexpr size_t kFixedHeader = 8;
constexpr uint64_t kSmallForMixing = uint64_t{1} << 18;  // elements: 10 ms
constexpr uint64_t kMostBits = 64;  // that a stream decodes beyond its bytes: the decoder's state

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

  float Float() {
    if (end_ - next_ < 4) return static_cast<float>(Fail());
    const uint32_t bits = static_cast<uint32_t>(ReadLittleEndian(next_, 4));
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    next_ += 4;
    return value;
  }

  bool ok() const { return ok_; }
  const uint8_t* next() const { return next_; }
  size_t left() const { return static_cast<size_t>(end_ - next_); }

 private:
  uint64_t Fail() {
    ok_ = false;
    next_ = end_;
    return 0;
  }

  const uint8_t* next_;
  const uint8_t* end_;
  bool ok_ = true;
};

void AppendNumber(uint64_t number, std::vector<uint8_t>* bytes) {
  for (; number > 127; number >>= 7) bytes->push_back(static_cast<uint8_t>(number | 128));
  bytes->push_back(static_cast<uint8_t>(number));
}

struct Header {
  LevelCoder coder;
  ValueType value_type;
  uint32_t kept;
  int32_t largest;
  float step;
};

Status CheckHeader(const Header& header, uint64_t kept, uint64_t largest, uint64_t elements) {
  if (kept > elements || kept > UINT32_MAX - 1) return Status::Problem("coded weight: more kept weights than elements");
  const bool is_int8 = header.value_type == ValueType::kInt8;
  if (largest > (is_int8 ? 128u : static_cast<uint32_t>(kLargestLevel)) || (largest == 0) != (kept == 0)) {
    return Status::Problem("coded weight: the largest level is not within 1 to 32767, of int8 to 128");
  }
  if (!is_int8 && !(std::isfinite(header.step) && header.step > 0)) {
    return Status::Problem("coded weight: the step is not a positive number");
  }
  return Status::Ok();
}

float ValueOf(int32_t level, const Header& header, float) {
  const float value = static_cast<float>(level) * header.step;
  return header.value_type == ValueType::kFloat16 ? FloatFromHalf(HalfFromFloat(value)) : value;
}
int8_t ValueOf(int32_t level, const Header&, int8_t) { return static_cast<int8_t>(level); }

// Whether a level is one of its type; +128 is the only one that the largest magnitude does not rule out.
bool IsOfType(int32_t level, float) { return level != 0; }
bool IsOfType(int32_t level, int8_t) { return level < 128; }

// The matrix that the mixing coder sees.
LevelMatrix MatrixOf(const std::vector<int64_t>& shape, LevelCoder coder) {
  LevelMatrix matrix;
  int64_t columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) columns *= shape[axis];
  matrix.rows = shape[0];
  matrix.places = shape.size() > 1 ? columns / shape[1] : 1;
  matrix.columns = columns;
  if (coder == LevelCoder::kSwappedMixing) {
    matrix.rows = columns / matrix.places;
    matrix.columns = shape[0] * matrix.places;
  }
  return matrix;
}

// Kernels of `places` numbers, [rows][columns] of them, as [columns][rows].
std::vector<int32_t> Swapped(const int32_t* levels, int64_t rows, int64_t columns, int64_t places) {
  std::vector<int32_t> swapped(static_cast<size_t>(rows * columns * places));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      std::copy_n(levels + (row * columns + column) * places, places, swapped.data() + (column * rows + row) * places);
    }
  }
  return swapped;
}

template <class Value>
Status DecodeMixed(HeaderReader reader, const Header& header, SparseMatrix<Value>* weight) {
  LevelMatrix matrix = MatrixOf(weight->shape, header.coder);
  if (static_cast<uint64_t>(weight->rows) * static_cast<uint64_t>(weight->columns) > kMixingElements) {
    return Status::Problem("coded weight: more than 2^20 elements, of the coder for small weights");
  }
  const uint64_t grid = reader.Number();
  if (!reader.ok() || grid > static_cast<uint64_t>(matrix.columns)) {
    return Status::Problem("coded weight: the image is wider than a row");
  }
  matrix.grid = static_cast<int64_t>(grid);
  matrix.kept = header.kept;
  matrix.largest = header.largest;
  matrix.levels.resize(static_cast<size_t>(weight->rows * weight->columns));
  if (header.kept == 0) {
    if (reader.left() != 0) return Status::Problem("coded weight: bytes behind the stream");
  } else {
    RangeDecoder decoder(reader.next(), reader.left());
    if (!std::make_unique<MixingCoder<RangeDecoder>>(&decoder, &matrix)->Run()) {
      return Status::Problem("coded weight: the levels contradict the header");
    }
    if (!decoder.IsAtEnd()) return Status::Problem("coded weight: the stream ends early or late");
  }
  if (header.coder == LevelCoder::kSwappedMixing) {
    matrix.levels = Swapped(matrix.levels.data(), matrix.rows, matrix.columns / matrix.places, matrix.places);
  }
  weight->column.reserve(header.kept);
  weight->value.reserve(header.kept);
  weight->row_start.assign(1, 0);
  const int32_t* level = matrix.levels.data();
  for (int64_t row = 0; row < weight->rows; ++row) {
    for (int64_t column = 0; column < weight->columns; ++column, ++level) {
      if (*level == 0) continue;
      if (!IsOfType(*level, Value())) return Status::Problem("coded weight: a level of 128, expected int8");
      weight->column.push_back(static_cast<uint32_t>(column));
      weight->value.push_back(ValueOf(*level, header, Value()));
    }
    weight->row_start.push_back(static_cast<uint32_t>(weight->column.size()));
  }
  return Status::Ok();
}

// Consecutive rows with a stream of their own.
struct Group {
  uint64_t first_row;
  uint64_t rows;
  uint64_t first;
  uint64_t kept;
  const uint8_t* bytes;
  uint64_t size;
};

template <class Value>
Status DecodeGroup(const Group& group, const Header& header, SparseMatrix<Value>* weight) {
  RangeDecoder decoder(group.bytes, static_cast<size_t>(group.size));
  const auto coder = std::make_unique<GapCoder>();
  const uint32_t columns = static_cast<uint32_t>(weight->columns);
  size_t at = static_cast<size_t>(group.first);
  const size_t end = at + static_cast<size_t>(group.kept);
  for (uint64_t row = group.first_row; row < group.first_row + group.rows; ++row) {
    uint32_t kept = coder->Count(&decoder, 0);
    if (kept > columns || kept > end - at) return Status::Problem("coded weight: a row has more weights than are left");
    for (uint32_t next = 0; kept > 0; --kept) {
      const uint32_t gap = coder->Gap(&decoder, 0, columns - next, kept);
      if (gap > columns - next - kept) return Status::Problem("coded weight: a gap leads past the end of its row");
      const bool negative = coder->Sign(&decoder, false);
      const uint32_t magnitude = coder->Magnitude(&decoder, 1);
      const int32_t level = negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
      if (magnitude > static_cast<uint32_t>(header.largest) || !IsOfType(level, Value())) {
        return Status::Problem("coded weight: a level is larger than the largest");
      }
      weight->column[at] = next + gap;
      weight->value[at++] = ValueOf(level, header, Value());
      next += gap + 1;
    }
    weight->row_start[static_cast<size_t>(row) + 1] = static_cast<uint32_t>(at);
  }
  if (at != end) return Status::Problem("coded weight: fewer weights than the header says");
  if (!decoder.IsAtEnd()) return Status::Problem("coded weight: the stream ends early or late");
  return Status::Ok();
}

template <class Value>
Status ReadGroups(HeaderReader reader, const Header& header, const SparseMatrix<Value>& weight, std::vector<Group>* groups) {
  const uint64_t count = reader.Number();
  if (count > reader.left() / 3) return Status::Problem("coded weight: more groups of rows than bytes");
  uint64_t rows = 0, kept = 0, bytes = 0;
  for (uint64_t i = 0; i < count; ++i) {
    Group group{rows, reader.Number(), kept, reader.Number(), nullptr, reader.Number()};
    // Every kept weight has a sign, which takes a bit: what is allocated is bounded by the file's size.
    if (!reader.ok() || group.rows > static_cast<uint64_t>(weight.rows) - rows || group.kept > header.kept - kept ||
        group.size > reader.left() || group.kept > 8 * group.size + kMostBits) {
      return Status::Problem("coded weight: a group of rows is larger than the weight or its stream");
    }
    rows += group.rows;
    kept += group.kept;
    bytes += group.size;
    groups->push_back(group);
  }
  const bool is_whole = kept == header.kept && bytes == reader.left() &&
                        (rows == static_cast<uint64_t>(weight.rows) || (header.kept == 0 && count == 0));
  if (!reader.ok() || !is_whole) return Status::Problem("coded weight: the groups of rows are not the whole weight");
  const uint8_t* next = reader.next();
  for (Group& group : *groups) {
    group.bytes = next;
    next += group.size;
  }
  return Status::Ok();
}

template <class Value>
Status DecodeGaps(HeaderReader reader, const Header& header, int64_t threads, SparseMatrix<Value>* weight) {
  if (weight->columns >= int64_t{kGapColumns}) return Status::Problem("coded weight: 2^28 columns or more");
  std::vector<Group> groups;
  if (const Status status = ReadGroups(reader, header, *weight, &groups); !status.ok()) return status;
  weight->row_start.assign(static_cast<size_t>(weight->rows) + 1, 0);
  weight->column.resize(header.kept);
  weight->value.resize(header.kept);
  std::vector<Status> outcomes(groups.size(), Status::Ok());
  std::atomic<size_t> taken{0};
  const auto work = [&] {
    for (size_t i; (i = taken.fetch_add(1)) < groups.size();) outcomes[i] = DecodeGroup(groups[i], header, weight);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < std::min<int64_t>(threads, static_cast<int64_t>(groups.size())); ++i) {
    try {
      others.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // there are no more threads to be had
    }
  }
  work();
  for (std::thread& other : others) other.join();
  for (const Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return Status::Ok();
}

template <class Value>
Status Decode(const uint8_t* bytes, size_t size, int64_t threads, SparseMatrix<Value>* weight) {
  weight->column.clear();
  weight->value.clear();
  if (bytes == nullptr || size < kFixedHeader + kChecksumBytes || std::memcmp(bytes, kMagic, sizeof(kMagic)) != 0 ||
      bytes[4] != kCodedVersion) {
    return Status::Problem("coded weight: does not begin with GSPW and 2");
  }
  if (Checksum(bytes, size - kChecksumBytes) != ReadLittleEndian(bytes + size - kChecksumBytes, kChecksumBytes)) {
    return Status::Problem("coded weight: the checksum does not match; the file is damaged");
  }
  const size_t rank = bytes[7];
  if (bytes[5] > 2) return Status::Problem("coded weight: unknown coder, expected 0 to 2");
  if (bytes[6] > 2) return Status::Problem("coded weight: unknown value type, expected 0, 1 or 2");
  if (rank < 1 || rank > kMaximumRank) return Status::Problem("coded weight: the rank is not within 1 to 8");
  Header header{static_cast<LevelCoder>(bytes[5]), static_cast<ValueType>(bytes[6]), 0, 0, 1.0f};
  if (header.coder == LevelCoder::kSwappedMixing && rank < 2) {
    return Status::Problem("coded weight: two axes are swapped, and there is one");
  }
  if (const Status status = CheckValueType(header.value_type, Value()); !status.ok()) return status;
  HeaderReader reader(bytes + kFixedHeader, size - kFixedHeader - kChecksumBytes);
  std::vector<uint64_t> extents;
  for (size_t axis = 0; axis < rank; ++axis) extents.push_back(reader.Number());
  const uint64_t kept = reader.Number(), largest = reader.Number();
  if (header.value_type != ValueType::kInt8) header.step = reader.Float();
  if (!reader.ok()) return Status::Problem("coded weight: too few bytes for a header, or a number longer than it must be");
  uint64_t elements = 0;
  if (const Status status = SetShape(extents, weight, &elements); !status.ok()) return status;
  if (const Status status = CheckHeader(header, kept, largest, elements); !status.ok()) return status;
  header.kept = static_cast<uint32_t>(kept);
  header.largest = static_cast<int32_t>(largest);
  return header.coder == LevelCoder::kGaps ? DecodeGaps(reader, header, threads, weight)
                                           : DecodeMixed(reader, header, weight);
}

std::vector<uint8_t> MixedStream(LevelMatrix* matrix) {
  RangeEncoder encoder;
  std::make_unique<MixingCoder<RangeEncoder>>(&encoder, matrix)->Run();
  return encoder.Finish();
}

struct CodedGroup {
  uint64_t rows = 0;
  uint64_t kept = 0;
  std::vector<uint8_t> stream;
};

// The group that begins with the first of `rows` rows.
CodedGroup NextGroup(const int32_t* levels, uint64_t rows, uint32_t columns, uint32_t kept_of_group) {
  CodedGroup group;
  RangeEncoder encoder;
  const auto coder = std::make_unique<GapCoder>();
  while (group.rows < rows && group.kept < kept_of_group) {
    const int32_t* const row = levels + group.rows++ * columns;
    uint32_t kept = columns - static_cast<uint32_t>(std::count(row, row + columns, 0)), next = 0;
    group.kept += kept;
    coder->Count(&encoder, kept);
    for (uint32_t column = 0; kept > 0; ++column) {
      if (row[column] == 0) continue;
      coder->Gap(&encoder, column - next, columns - next, kept--);
      coder->Sign(&encoder, row[column] < 0);
      coder->Magnitude(&encoder, static_cast<uint32_t>(std::abs(row[column])));
      next = column + 1;
    }
  }
  group.stream = encoder.Finish();
  return group;
}

void AppendGroups(const int32_t* levels, uint64_t rows, uint32_t columns, uint32_t kept_of_group,
                  std::vector<uint8_t>* bytes) {
  std::vector<CodedGroup> groups;
  for (uint64_t row = 0; row < rows; row += groups.back().rows) {
    groups.push_back(NextGroup(levels + row * columns, rows - row, columns, kept_of_group));
  }
  AppendNumber(groups.size(), bytes);
  for (const CodedGroup& group : groups) {
    AppendNumber(group.rows, bytes);
    AppendNumber(group.kept, bytes);
    AppendNumber(group.stream.size(), bytes);
  }
  for (const CodedGroup& group : groups) bytes->insert(bytes->end(), group.stream.begin(), group.stream.end());
}

}  // namespace

Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseWeight* weight) {
  return Decode(bytes, size, threads, weight);
}
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseByteWeight* weight) {
  return Decode(bytes, size, threads, weight);
}

std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, const Coding& coding) {
  LevelMatrix matrix = MatrixOf(shape, coding.coder);
  const int64_t elements = matrix.rows * matrix.columns;
  for (int64_t i = 0; i < elements; ++i) {
    matrix.kept += levels[i] != 0;
    matrix.largest = std::max(matrix.largest, std::abs(levels[i]));
  }
  std::vector<uint8_t> bytes(kMagic, kMagic + sizeof(kMagic));
  bytes.push_back(kCodedVersion);
  bytes.push_back(static_cast<uint8_t>(coding.coder));
  bytes.push_back(static_cast<uint8_t>(value_type));
  bytes.push_back(static_cast<uint8_t>(shape.size()));
  for (const int64_t extent : shape) AppendNumber(static_cast<uint64_t>(extent), &bytes);
  AppendNumber(matrix.kept, &bytes);
  AppendNumber(static_cast<uint64_t>(matrix.largest), &bytes);
  if (value_type != ValueType::kInt8) {
    uint32_t bits;
    std::memcpy(&bits, &step, sizeof(bits));
    AppendLittleEndian(bits, sizeof(bits), &bytes);
  }
  if (coding.coder != LevelCoder::kGaps) {
    AppendNumber(static_cast<uint64_t>(coding.grid), &bytes);
    if (matrix.kept > 0) {
      matrix.grid = coding.grid;
      const bool is_swapped = coding.coder == LevelCoder::kSwappedMixing;
      matrix.levels = is_swapped ? Swapped(levels, shape[0], matrix.rows, matrix.places)
                                 : std::vector<int32_t>(levels, levels + elements);
      const std::vector<uint8_t> stream = MixedStream(&matrix);
      bytes.insert(bytes.end(), stream.begin(), stream.end());
    }
  } else if (matrix.kept > 0) {
    AppendGroups(levels, static_cast<uint64_t>(matrix.rows), static_cast<uint32_t>(matrix.columns), coding.kept_of_group,
                 &bytes);
  } else {
    AppendNumber(0, &bytes);
  }
  AppendLittleEndian(Checksum(bytes.data(), bytes.size()), kChecksumBytes, &bytes);
  return bytes;
}

std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, int64_t grid) {
  uint64_t elements = 1;
  for (const int64_t extent : shape) elements *= static_cast<uint64_t>(extent);
  std::vector<Coding> candidates(1);
  if (elements >= kSmallForMixing) {
    candidates[0].coder = LevelCoder::kGaps;
  } else {
    if (grid > 0) {
      candidates.emplace_back();
      candidates.back().grid = grid;
    }
    if (shape.size() > 1) {
      candidates.emplace_back();
      candidates.back().coder = LevelCoder::kSwappedMixing;
    }
  }
  std::vector<uint8_t> shortest;
  for (const Coding& coding : candidates) {
    std::vector<uint8_t> bytes = EncodeCodedWeight(shape, levels, value_type, step, coding);
    if (shortest.empty() || bytes.size() < shortest.size()) shortest = std::move(bytes);
  }
  return shortest;
}

}  // namespace gossamer
