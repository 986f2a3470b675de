#include "format/coded_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

#include "format/checksum.h"
#include "format/coded_header.h"
#include "format/gap_coder.h"
#include "format/half.h"
#include "format/header.h"
#include "format/little_endian.h"
#include "format/mixing_coder.h"

namespace gossamer {
namespace {

constexpr size_t kFixedHeader = 2;
constexpr uint64_t kSmallForMixing = uint64_t{1} << 18;  // elements: 10 ms
constexpr uint64_t kMostBits = 64;  // that a stream decodes beyond its bytes: the decoder's state

struct Header {
  CodedKind kind;
  LevelsHeader levels;
  LevelsHeader bias;
};

float ValueOf(int32_t level, const Header& header, float) {
  const float value = static_cast<float>(level) * header.levels.step;
  return header.kind.value_type == ValueType::kFloat16 ? FloatFromHalf(HalfFromFloat(value)) : value;
}
int8_t ValueOf(int32_t level, const Header&, int8_t) { return static_cast<int8_t>(level); }

// Whether a level is one of its type; +128 is the only one that the largest magnitude does not rule out.
bool IsOfType(int32_t level, float) { return level != 0; }
bool IsOfType(int32_t level, int8_t) { return level < 128; }

bool RunMatrix(const LevelsHeader& header, RangeDecoder* decoder, LevelMatrix* matrix) {
  matrix->kept = header.kept;
  matrix->largest = header.largest;
  matrix->levels.resize(static_cast<size_t>(matrix->rows * matrix->columns));
  return header.kept == 0 || std::make_unique<MixingCoder<RangeDecoder>>(decoder, matrix)->Run();
}

// The bias, and whether the stream ends behind it.
Status FinishStream(const Header& header, int64_t rows, RangeDecoder* decoder, size_t size, std::vector<float>* bias) {
  if (header.kind.has_bias) {
    LevelMatrix matrix = BiasMatrix(rows);
    if (!RunMatrix(header.bias, decoder, &matrix)) return Status::Problem("coded weight: the bias contradicts the header");
    for (const int32_t level : matrix.levels) bias->push_back(static_cast<float>(level) * header.bias.step);
  }
  const bool is_empty = header.bias.kept == 0 && (header.levels.kept == 0 || header.kind.coder == LevelCoder::kGaps);
  if (is_empty ? size > 0 : !decoder->IsAtEnd()) return Status::Problem("coded weight: the stream ends early or late");
  return Status::Ok();
}

template <class Value>
Status DecodeMixed(HeaderReader reader, const Header& header, int64_t grid, SparseMatrix<Value>* weight,
                   std::vector<float>* bias) {
  LevelMatrix matrix = MatrixOf(weight->shape, header.kind.coder);
  if (static_cast<uint64_t>(weight->rows) * static_cast<uint64_t>(weight->columns) > kMixingElements) {
    return Status::Problem("coded weight: more than 2^20 elements, of the coder for small weights");
  }
  matrix.grid = grid;
  RangeDecoder decoder(reader.next(), reader.left());
  if (!RunMatrix(header.levels, &decoder, &matrix)) {
    return Status::Problem("coded weight: the levels contradict the header");
  }
  if (const Status status = FinishStream(header, weight->rows, &decoder, reader.left(), bias); !status.ok()) return status;
  if (header.kind.coder == LevelCoder::kSwappedMixing) {
    matrix.levels = Swapped(matrix.levels.data(), matrix.rows, matrix.columns / matrix.places, matrix.places);
  }
  weight->column.reserve(header.levels.kept);
  weight->value.reserve(header.levels.kept);
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
      if (magnitude > static_cast<uint32_t>(header.levels.largest) || !IsOfType(level, Value())) {
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
Status ReadGroups(HeaderReader* from, const Header& header, const SparseMatrix<Value>& weight, std::vector<Group>* groups) {
  HeaderReader& reader = *from;
  const uint64_t count = reader.Number();
  if (count > reader.left() / 3) return Status::Problem("coded weight: more groups of rows than bytes");
  uint64_t rows = 0, kept = 0, bytes = 0;
  for (uint64_t i = 0; i < count; ++i) {
    Group group{rows, reader.Number(), kept, reader.Number(), nullptr, reader.Number()};
    // Every kept weight has a sign, which takes a bit: what is allocated is bounded by the file's size.
    if (!reader.ok() || group.rows > static_cast<uint64_t>(weight.rows) - rows || group.kept > header.levels.kept - kept ||
        group.size > reader.left() || group.kept > 8 * group.size + kMostBits) {
      return Status::Problem("coded weight: a group of rows is larger than the weight or its stream");
    }
    rows += group.rows;
    kept += group.kept;
    bytes += group.size;
    groups->push_back(group);
  }
  const bool is_whole = kept == header.levels.kept && (header.kind.has_bias ? bytes <= reader.left() : bytes == reader.left()) &&
                        (rows == static_cast<uint64_t>(weight.rows) || (header.levels.kept == 0 && count == 0));
  if (!reader.ok() || !is_whole) return Status::Problem("coded weight: the groups of rows are not the whole weight");
  const uint8_t* next = reader.next();
  for (Group& group : *groups) {
    group.bytes = next;
    next += group.size;
  }
  return Status::Ok();
}

template <class Value>
Status DecodeGaps(HeaderReader reader, const Header& header, int64_t threads, SparseMatrix<Value>* weight,
                  std::vector<float>* bias) {
  if (weight->columns >= int64_t{kGapColumns}) return Status::Problem("coded weight: 2^28 columns or more");
  std::vector<Group> groups;
  if (const Status status = ReadGroups(&reader, header, *weight, &groups); !status.ok()) return status;
  const uint8_t* const behind = groups.empty() ? reader.next() : groups.back().bytes + groups.back().size;
  const size_t size_behind = static_cast<size_t>(reader.next() + reader.left() - behind);
  weight->row_start.assign(static_cast<size_t>(weight->rows) + 1, 0);
  weight->column.resize(header.levels.kept);
  weight->value.resize(header.levels.kept);
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
  RangeDecoder decoder(behind, size_behind);
  return FinishStream(header, weight->rows, &decoder, size_behind, bias);
}

template <class Value>
Status Decode(const uint8_t* bytes, size_t size, int64_t threads, SparseMatrix<Value>* weight, std::vector<float>* bias) {
  bias->clear();
  weight->column.clear();
  weight->value.clear();
  if (bytes == nullptr || size < kFixedHeader || bytes[0] != kCodedVersion) {
    return Status::Problem("coded weight: does not begin with 2");
  }
  if (bytes[1] >= kKinds) return Status::Problem("coded weight: unknown kind, expected 0 to 191");
  Header header{KindOf(bytes[1]), {}, {}};
  const size_t checksum_bytes = ChecksumBytesOf(header.kind.coder);
  if (size < kFixedHeader + checksum_bytes) return Status::Problem("coded weight: too few bytes");
  const uint32_t mask = checksum_bytes == 4 ? ~uint32_t{0} : 0xFFFFu;
  if ((Checksum(bytes, size - checksum_bytes) & mask) != ReadLittleEndian(bytes + size - checksum_bytes, checksum_bytes)) {
    return Status::Problem("coded weight: the checksum does not match; the file is damaged");
  }
  if (header.kind.coder == LevelCoder::kSwappedMixing && header.kind.rank < 2) {
    return Status::Problem("coded weight: two axes are swapped, and there is one");
  }
  const bool is_int8 = header.kind.value_type == ValueType::kInt8;
  if (is_int8 && header.kind.has_bias) return Status::Problem("coded weight: a bias of int8");
  if (const Status status = CheckValueType(header.kind.value_type, Value()); !status.ok()) return status;
  HeaderReader reader(bytes + kFixedHeader, size - kFixedHeader - checksum_bytes);
  std::vector<uint64_t> extents;
  for (size_t axis = 0; axis < header.kind.rank; ++axis) extents.push_back(reader.Number());
  const uint64_t kept = reader.Number(), largest = reader.Number();
  const float step = is_int8 ? 1.0f : reader.Step();
  const uint64_t grid = header.kind.coder == LevelCoder::kGridMixing ? reader.Number() : 0;
  const uint64_t bias_kept = header.kind.has_bias ? reader.Number() : 0, bias_largest = header.kind.has_bias ? reader.Number() : 0;
  const float bias_step = header.kind.has_bias ? reader.Step() : 1.0f;
  if (!reader.ok()) return Status::Problem("coded weight: too few bytes for a header, or a number longer than it must be");
  uint64_t elements = 0;
  if (const Status status = SetShape(extents, weight, &elements); !status.ok()) return status;
  if (const Status status = CheckLevels(kept, largest, step, elements, is_int8, &header.levels); !status.ok()) return status;
  const uint64_t rows = static_cast<uint64_t>(weight->rows);
  if (header.kind.has_bias && rows > kMixingElements) return Status::Problem("coded weight: a bias of more than 2^20 numbers");
  if (const Status status = CheckLevels(bias_kept, bias_largest, bias_step, rows, false, &header.bias); !status.ok()) {
    return status;
  }
  if (header.kind.coder == LevelCoder::kGridMixing && (grid == 0 || grid > elements / rows)) {
    return Status::Problem("coded weight: the image is not as wide as 1 to the columns");
  }
  return header.kind.coder == LevelCoder::kGaps ? DecodeGaps(reader, header, threads, weight, bias)
                                                : DecodeMixed(reader, header, static_cast<int64_t>(grid), weight, bias);
}

LevelsHeader HeaderOf(const int32_t* levels, int64_t elements, float step) {
  LevelsHeader header;
  header.step = step;
  for (int64_t i = 0; i < elements; ++i) {
    header.kept += levels[i] != 0;
    header.largest = std::max(header.largest, std::abs(levels[i]));
  }
  return header;
}

void EncodeMatrix(const LevelsHeader& header, std::vector<int32_t> levels, RangeEncoder* encoder, LevelMatrix* matrix) {
  if (header.kept == 0) return;
  matrix->kept = header.kept;
  matrix->largest = header.largest;
  matrix->levels = std::move(levels);
  std::make_unique<MixingCoder<RangeEncoder>>(encoder, matrix)->Run();
}

void AppendHeader(const std::vector<int64_t>& shape, const CodedKind& kind, int64_t grid, const LevelsHeader& levels,
                  const LevelsHeader& bias, std::vector<uint8_t>* bytes) {
  bytes->push_back(kCodedVersion);
  bytes->push_back(NumberOf(kind));
  for (const int64_t extent : shape) AppendNumber(static_cast<uint64_t>(extent), bytes);
  AppendNumber(levels.kept, bytes);
  AppendNumber(static_cast<uint64_t>(levels.largest), bytes);
  if (kind.value_type != ValueType::kInt8) AppendStep(levels.step, bytes);
  if (kind.coder == LevelCoder::kGridMixing) AppendNumber(static_cast<uint64_t>(grid), bytes);
  if (!kind.has_bias) return;
  AppendNumber(bias.kept, bytes);
  AppendNumber(static_cast<uint64_t>(bias.largest), bytes);
  AppendStep(bias.step, bytes);
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
  std::vector<float> bias;
  return Decode(bytes, size, threads, weight, &bias);
}
Status DecodeCodedWeight(const uint8_t* bytes, size_t size, int64_t threads, SparseByteWeight* weight) {
  std::vector<float> bias;
  return Decode(bytes, size, threads, weight, &bias);
}
Status DecodeWeightAndBias(const uint8_t* bytes, size_t size, int64_t threads, SparseWeight* weight, std::vector<float>* bias) {
  bias->clear();
  if (bytes != nullptr && size > 0 && bytes[0] == kCodedVersion) return Decode(bytes, size, threads, weight, bias);
  return DecodeSparseWeight(bytes, size, weight, threads);
}

std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, const Coding& coding, const BiasLevels& bias) {
  LevelMatrix matrix = MatrixOf(shape, coding.coder);
  const int64_t elements = matrix.rows * matrix.columns, rows = shape[0];
  const CodedKind kind{coding.coder, value_type, shape.size(), bias.levels != nullptr};
  const LevelsHeader header = HeaderOf(levels, elements, step);
  const LevelsHeader of_bias = kind.has_bias ? HeaderOf(bias.levels, rows, bias.step) : LevelsHeader();
  std::vector<uint8_t> bytes;
  AppendHeader(shape, kind, coding.grid, header, of_bias, &bytes);
  RangeEncoder encoder;
  if (coding.coder != LevelCoder::kGaps) {
    if (coding.coder == LevelCoder::kGridMixing) matrix.grid = coding.grid;
    const bool is_swapped = coding.coder == LevelCoder::kSwappedMixing;
    EncodeMatrix(header,
                 is_swapped ? Swapped(levels, rows, matrix.rows, matrix.places)
                            : std::vector<int32_t>(levels, levels + elements),
                 &encoder, &matrix);
  } else if (header.kept > 0) {
    AppendGroups(levels, static_cast<uint64_t>(matrix.rows), static_cast<uint32_t>(matrix.columns), coding.kept_of_group,
                 &bytes);
  } else {
    AppendNumber(0, &bytes);
  }
  if (kind.has_bias) {
    LevelMatrix of_rows = BiasMatrix(rows);
    EncodeMatrix(of_bias, std::vector<int32_t>(bias.levels, bias.levels + rows), &encoder, &of_rows);
  }
  const std::vector<uint8_t> stream = encoder.Finish();
  bytes.insert(bytes.end(), stream.begin(), stream.end());
  AppendLittleEndian(Checksum(bytes.data(), bytes.size()), ChecksumBytesOf(coding.coder), &bytes);
  return bytes;
}

std::vector<uint8_t> EncodeCodedWeight(const std::vector<int64_t>& shape, const int32_t* levels, ValueType value_type,
                                       float step, int64_t grid, const BiasLevels& bias) {
  uint64_t elements = 1;
  for (const int64_t extent : shape) elements *= static_cast<uint64_t>(extent);
  std::vector<Coding> candidates(1);
  if (elements >= kSmallForMixing) {
    candidates[0].coder = LevelCoder::kGaps;
  } else {
    if (grid > 0) {
      candidates.emplace_back();
      candidates.back().coder = LevelCoder::kGridMixing;
      candidates.back().grid = grid;
    }
    if (shape.size() > 1) {
      candidates.emplace_back();
      candidates.back().coder = LevelCoder::kSwappedMixing;
    }
  }
  std::vector<uint8_t> shortest;
  for (const Coding& coding : candidates) {
    std::vector<uint8_t> bytes = EncodeCodedWeight(shape, levels, value_type, step, coding, bias);
    if (shortest.empty() || bytes.size() < shortest.size()) shortest = std::move(bytes);
  }
  return shortest;
}

}  // namespace gossamer
