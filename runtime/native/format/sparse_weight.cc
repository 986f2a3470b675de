#include "format/sparse_weight.h"

#include <cstring>

#include "format/checksum.h"
#include "format/coded_weight.h"
#include "format/half.h"
#include "format/header.h"
#include "format/little_endian.h"

namespace gossamer {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kFixedHeader = 24;
constexpr uint8_t kLongGap = 255;

// Values of four neighbouring input channels.
constexpr size_t kQuadValues = 4;
struct QuadValues {
  int8_t of_channel[kQuadValues];
};

bool IsOfQuads(PositionCode code) { return code >= PositionCode::kQuadBitmask; }
bool IsBitmask(PositionCode code) { return code == PositionCode::kBitmask || code == PositionCode::kQuadBitmask; }

size_t BytesPerValue(ValueType type) { return type == ValueType::kInt8 ? 1 : type == ValueType::kFloat16 ? 2 : 4; }

// What the header says, checked against itself and against the number of bytes that are there.
struct Header {
  PositionCode position_code;
  ValueType value_type;
  uint64_t kept;
  uint64_t elements;
  const uint8_t* positions;
  size_t position_bytes;
  const uint8_t* values;
};

// Quads of a row.
template <class Value>
uint64_t QuadColumns(const SparseMatrix<Value>& weight) {
  const uint64_t channels = static_cast<uint64_t>(weight.shape[1]);
  return (channels + kQuadValues - 1) / kQuadValues * (static_cast<uint64_t>(weight.columns) / channels);
}

template <class Value>
Status ReadHeader(const uint8_t* bytes, size_t size, SparseMatrix<Value>* weight, Header* header) {
  if (bytes == nullptr || size < kFixedHeader + 4 + 4) {
    return Status::Problem("sparse weight: too few bytes for a header");
  }
  if (std::memcmp(bytes, kMagic, sizeof(kMagic)) != 0) {
    return Status::Problem("sparse weight: does not begin with GSPW; is this a packed weight?");
  }
  if (bytes[4] != kVersion) {
    return Status::Problem("sparse weight: of another version than 1 and 2; this gossamer-runtime is older than the file");
  }
  if (bytes[5] > 3) return Status::Problem("sparse weight: unknown position code, expected 0 to 3");
  if (bytes[6] > 2) return Status::Problem("sparse weight: unknown value type, expected 0, 1 or 2");
  const size_t rank = bytes[7];
  if (rank < 1 || rank > kMaximumRank) return Status::Problem("sparse weight: the rank is not within 1 to 8");
  header->position_code = static_cast<PositionCode>(bytes[5]);
  const bool of_quads = IsOfQuads(header->position_code);
  if (of_quads && (static_cast<ValueType>(bytes[6]) != ValueType::kInt8 || rank < 2)) {
    return Status::Problem("sparse weight: positions of quads are for int8 values of at least two axes");
  }
  header->value_type = static_cast<ValueType>(bytes[6]);
  if (const Status status = CheckValueType(header->value_type, Value()); !status.ok()) return status;
  header->kept = ReadLittleEndian(bytes + 8, 8);
  const uint64_t position_bytes = ReadLittleEndian(bytes + 16, 8);

  const size_t before_positions = kFixedHeader + 4 * rank;
  if (size < before_positions + 4) return Status::Problem("sparse weight: too few bytes for its shape");
  const size_t payload = size - before_positions - 4;
  if (position_bytes > payload) return Status::Problem("sparse weight: fewer bytes than the positions need");
  const size_t bytes_per_kept = BytesPerValue(header->value_type) * (of_quads ? kQuadValues : 1);
  if (header->kept != (payload - position_bytes) / bytes_per_kept || (payload - position_bytes) % bytes_per_kept != 0) {
    return Status::Problem("sparse weight: the bytes left for values do not match the number of kept weights");
  }
  if (header->kept > (UINT32_MAX - 1) / (of_quads ? kQuadValues : 1)) return Status::Problem("sparse weight: too many kept weights");
  if (Checksum(bytes, size - 4) != ReadLittleEndian(bytes + size - 4, 4)) {
    return Status::Problem("sparse weight: the checksum does not match; the file is damaged");
  }
  std::vector<uint64_t> extents;
  for (size_t axis = 0; axis < rank; ++axis) extents.push_back(ReadLittleEndian(bytes + kFixedHeader + 4 * axis, 4));
  if (const Status shape = SetShape(extents, weight, &header->elements); !shape.ok()) return shape;
  if (of_quads) header->elements = static_cast<uint64_t>(weight->rows) * QuadColumns(*weight);
  if (header->kept > header->elements) return Status::Problem("sparse weight: more kept weights than elements");
  header->positions = bytes + before_positions;
  header->position_bytes = static_cast<size_t>(position_bytes);
  header->values = header->positions + header->position_bytes;
  return Status::Ok();
}

// Receives the positions of kept weights in ascending order and lays them out as compressed rows.
template <class Value>
class RowBuilder {
 public:
  explicit RowBuilder(SparseMatrix<Value>* weight) : weight_(weight) {
    weight_->row_start.assign(1, 0);
    weight_->row_start.reserve(static_cast<size_t>(weight->rows) + 1);
  }

  void Add(uint64_t position) {
    while (position >= row_end_) FinishRow();
    weight_->column.push_back(static_cast<uint32_t>(position - (row_end_ - static_cast<uint64_t>(weight_->columns))));
  }

  void Finish() {
    while (weight_->row_start.size() <= static_cast<size_t>(weight_->rows)) FinishRow();
  }

 private:
  void FinishRow() {
    weight_->row_start.push_back(static_cast<uint32_t>(weight_->column.size()));
    row_end_ += static_cast<uint64_t>(weight_->columns);
  }

  SparseMatrix<Value>* weight_;
  uint64_t row_end_ = static_cast<uint64_t>(weight_->columns);
};

template <class Value>
Status DecodeBitmask(const Header& header, SparseMatrix<Value>* weight) {
  if (header.position_bytes != (header.elements + 7) / 8) {
    return Status::Problem("sparse weight: the bitmask has not one bit for each element");
  }
  uint64_t kept = 0;
  for (size_t i = 0; i < header.position_bytes; ++i) {
    kept += static_cast<uint64_t>(__builtin_popcount(header.positions[i]));
  }
  if (kept != header.kept) return Status::Problem("sparse weight: the bitmask has another number of kept weights");
  if (const unsigned used = header.elements % 8; used != 0) {
    if (header.positions[header.position_bytes - 1] >> used) {
      return Status::Problem("sparse weight: the bitmask has bits after the last element");
    }
  }
  RowBuilder<Value> rows(weight);
  for (size_t i = 0; i < header.position_bytes; ++i) {
    for (unsigned bits = header.positions[i]; bits != 0; bits &= bits - 1) {
      rows.Add(uint64_t{8} * i + static_cast<unsigned>(__builtin_ctz(bits)));
    }
  }
  rows.Finish();
  return Status::Ok();
}

template <class Value>
Status DecodeGaps(const Header& header, SparseMatrix<Value>* weight) {
  RowBuilder<Value> rows(weight);
  uint64_t next = 0;  // the first element that no code has spoken of yet
  for (size_t i = 0; i < header.position_bytes; ++i) {
    const uint8_t gap = header.positions[i];
    next += gap;
    if (next > header.elements) return Status::Problem("sparse weight: a gap leads past the last element");
    if (gap == kLongGap) continue;
    if (next == header.elements || weight->column.size() == header.kept) {
      return Status::Problem("sparse weight: more positions than kept weights or elements");
    }
    rows.Add(next++);
  }
  if (weight->column.size() != header.kept) {
    return Status::Problem("sparse weight: the gaps have another number of kept weights");
  }
  rows.Finish();
  return Status::Ok();
}

void DecodeValues(const Header& header, SparseWeight* weight) {
  weight->value.resize(static_cast<size_t>(header.kept));
  const uint8_t* bytes = header.values;
  for (float& value : weight->value) {
    if (header.value_type == ValueType::kFloat16) {
      value = FloatFromHalf(static_cast<uint16_t>(ReadLittleEndian(bytes, 2)));
      bytes += 2;
    } else {
      const uint32_t bits = static_cast<uint32_t>(ReadLittleEndian(bytes, 4));
      std::memcpy(&value, &bits, sizeof(value));
      bytes += 4;
    }
  }
}

void DecodeValues(const Header& header, SparseByteWeight* weight) {
  const uint8_t* const end = header.values + header.kept;
  for (const uint8_t* byte = header.values; byte != end; ++byte) weight->value.push_back(static_cast<int8_t>(*byte));
}

template <class Value>
std::vector<uint8_t> EncodeBitmask(const SparseMatrix<Value>& weight) {
  std::vector<uint8_t> mask((static_cast<size_t>(weight.rows) * static_cast<size_t>(weight.columns) + 7) / 8, 0);
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      const size_t position = row * static_cast<size_t>(weight.columns) + weight.column[i];
      mask[position / 8] = static_cast<uint8_t>(mask[position / 8] | 1u << (position % 8));
    }
  }
  return mask;
}

template <class Value>
std::vector<uint8_t> EncodeGaps(const SparseMatrix<Value>& weight) {
  std::vector<uint8_t> gaps;
  gaps.reserve(weight.kept());
  size_t next = 0;
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      const size_t position = row * static_cast<size_t>(weight.columns) + weight.column[i];
      size_t gap = position - next;
      for (; gap >= kLongGap; gap -= kLongGap) gaps.push_back(kLongGap);
      gaps.push_back(static_cast<uint8_t>(gap));
      next = position + 1;
    }
  }
  return gaps;
}

void AppendValue(float value, ValueType type, std::vector<uint8_t>* bytes) {
  uint32_t bits = HalfFromFloat(value);
  if (type == ValueType::kFloat32) std::memcpy(&bits, &value, sizeof(bits));
  AppendLittleEndian(bits, BytesPerValue(type), bytes);
}

void AppendValue(int8_t value, ValueType, std::vector<uint8_t>* bytes) {
  bytes->push_back(static_cast<uint8_t>(value));
}

void AppendValue(const QuadValues& values, ValueType type, std::vector<uint8_t>* bytes) {
  for (const int8_t value : values.of_channel) AppendValue(value, type, bytes);
}

template <class Value>
std::vector<uint8_t> Assemble(const SparseMatrix<Value>& weight, ValueType value_type, PositionCode code,
                              const std::vector<uint8_t>& positions) {
  std::vector<uint8_t> bytes(kMagic, kMagic + sizeof(kMagic));
  bytes.push_back(kVersion);
  bytes.push_back(static_cast<uint8_t>(code));
  bytes.push_back(static_cast<uint8_t>(value_type));
  bytes.push_back(static_cast<uint8_t>(weight.shape.size()));
  AppendLittleEndian(weight.kept(), 8, &bytes);
  AppendLittleEndian(positions.size(), 8, &bytes);
  for (const int64_t extent : weight.shape) AppendLittleEndian(static_cast<uint64_t>(extent), 4, &bytes);
  bytes.insert(bytes.end(), positions.begin(), positions.end());
  for (const Value& value : weight.value) AppendValue(value, value_type, &bytes);
  AppendLittleEndian(Checksum(bytes.data(), bytes.size()), 4, &bytes);
  return bytes;
}

template <class Value>
Status DecodePositions(const Header& header, SparseMatrix<Value>* weight) {
  weight->column.clear();
  weight->column.reserve(static_cast<size_t>(header.kept));
  return IsBitmask(header.position_code) ? DecodeBitmask(header, weight) : DecodeGaps(header, weight);
}

// The weights of kept quads, in the order of their columns.
Status DecodeQuads(const Header& header, SparseByteWeight* weight) {
  SparseMatrix<QuadValues> quads;
  quads.rows = weight->rows;
  quads.columns = static_cast<int64_t>(QuadColumns(*weight));
  if (const Status status = DecodePositions(header, &quads); !status.ok()) return status;
  const size_t channels = static_cast<size_t>(weight->shape[1]);
  const size_t places = static_cast<size_t>(weight->columns) / channels;
  weight->row_start.assign(1, 0);
  weight->column.clear();
  for (size_t row = 0; row < static_cast<size_t>(weight->rows); ++row) {
    for (uint32_t first = quads.row_start[row], last; first < quads.row_start[row + 1]; first = last) {
      // The quads of the same channels, of which each channel is a run of columns.
      const size_t quad = quads.column[first] / places;
      for (last = first; last < quads.row_start[row + 1] && quads.column[last] / places == quad;) ++last;
      for (size_t c = 0; c < kQuadValues; ++c) {
        for (uint32_t i = first; i < last; ++i) {
          const int8_t value = static_cast<int8_t>(header.values[kQuadValues * i + c]);
          if (value == 0) continue;
          const size_t channel = kQuadValues * quad + c;
          if (channel >= channels) return Status::Problem("sparse weight: a quad has a weight behind the last channel");
          weight->column.push_back(static_cast<uint32_t>(channel * places + quads.column[i] % places));
          weight->value.push_back(value);
        }
      }
    }
    weight->row_start.push_back(static_cast<uint32_t>(weight->column.size()));
  }
  return Status::Ok();
}
Status DecodeQuads(const Header&, SparseWeight*) { return Status::Problem("sparse weight: quads of floats"); }

template <class Value>
Status Decode(const uint8_t* bytes, size_t size, SparseMatrix<Value>* weight) {
  Header header{};
  if (const Status status = ReadHeader(bytes, size, weight, &header); !status.ok()) return status;
  weight->value.clear();
  if (IsOfQuads(header.position_code)) return DecodeQuads(header, weight);
  if (const Status status = DecodePositions(header, weight); !status.ok()) return status;
  weight->value.reserve(static_cast<size_t>(header.kept));
  DecodeValues(header, weight);
  return Status::Ok();
}

template <class Value>
Status DecodeAnyVersion(const uint8_t* bytes, size_t size, int64_t threads, SparseMatrix<Value>* weight) {
  if (bytes != nullptr && size > 0 && bytes[0] == kCodedVersion) {
    return DecodeCodedWeight(bytes, size, threads, weight);
  }
  return Decode(bytes, size, weight);
}

// A dense weight as rows of quads.
SparseMatrix<QuadValues> QuadsFromDense(const std::vector<int64_t>& shape, const int8_t* dense) {
  SparseMatrix<QuadValues> quads;
  quads.shape = shape;
  quads.rows = shape[0];
  quads.columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) quads.columns *= shape[axis];
  const int64_t channels = shape[1], places = quads.columns / channels, row_size = quads.columns;
  quads.columns = static_cast<int64_t>(QuadColumns(quads));
  quads.row_start.push_back(0);
  for (int64_t row = 0; row < quads.rows; ++row) {
    for (int64_t column = 0; column < quads.columns; ++column) {
      QuadValues values = {};
      bool kept = false;
      for (int64_t c = 0; c < static_cast<int64_t>(kQuadValues); ++c) {
        const int64_t channel = column / places * static_cast<int64_t>(kQuadValues) + c;
        if (channel >= channels) break;
        values.of_channel[c] = dense[row * row_size + channel * places + column % places];
        kept = kept || values.of_channel[c] != 0;
      }
      if (!kept) continue;
      quads.column.push_back(static_cast<uint32_t>(column));
      quads.value.push_back(values);
    }
    quads.row_start.push_back(static_cast<uint32_t>(quads.column.size()));
  }
  return quads;
}

template <class Value>
std::vector<uint8_t> Encode(const SparseMatrix<Value>& weight, ValueType value_type, PositionCode position_code) {
  return Assemble(weight, value_type, position_code, IsBitmask(position_code) ? EncodeBitmask(weight) : EncodeGaps(weight));
}

template <class Value>
std::vector<uint8_t> EncodeShorter(const SparseMatrix<Value>& weight, ValueType value_type, PositionCode bitmask,
                                   PositionCode gaps) {
  const std::vector<uint8_t> by_mask = EncodeBitmask(weight);
  const std::vector<uint8_t> by_gaps = EncodeGaps(weight);
  return by_gaps.size() < by_mask.size() ? Assemble(weight, value_type, gaps, by_gaps)
                                         : Assemble(weight, value_type, bitmask, by_mask);
}

}  // namespace

Status DecodeSparseWeight(const uint8_t* bytes, size_t size, SparseWeight* weight, int64_t threads) {
  return DecodeAnyVersion(bytes, size, threads, weight);
}
Status DecodeSparseWeight(const uint8_t* bytes, size_t size, SparseByteWeight* weight, int64_t threads) {
  return DecodeAnyVersion(bytes, size, threads, weight);
}

std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const float* dense, ValueType value_type,
                                        PositionCode position_code) {
  return Encode(SparseWeightFromDense(shape, dense), value_type, position_code);
}

std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const float* dense, ValueType value_type) {
  return EncodeShorter(SparseWeightFromDense(shape, dense), value_type, PositionCode::kBitmask, PositionCode::kGaps);
}

std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const int8_t* dense,
                                        PositionCode position_code) {
  if (IsOfQuads(position_code)) return Encode(QuadsFromDense(shape, dense), ValueType::kInt8, position_code);
  return Encode(SparseWeightFromDense(shape, dense), ValueType::kInt8, position_code);
}

std::vector<uint8_t> EncodeSparseWeight(const std::vector<int64_t>& shape, const int8_t* dense) {
  std::vector<uint8_t> single = EncodeShorter(SparseWeightFromDense(shape, dense), ValueType::kInt8,
                                              PositionCode::kBitmask, PositionCode::kGaps);
  if (shape.size() < 2) return single;
  std::vector<uint8_t> quads = EncodeShorter(QuadsFromDense(shape, dense), ValueType::kInt8, PositionCode::kQuadBitmask,
                                             PositionCode::kQuadGaps);
  return quads.size() < single.size() ? quads : single;
}

}  // namespace gossamer
