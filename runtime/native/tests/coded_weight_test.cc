#include "format/coded_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "format/checksum.h"
#include "format/half.h"
#include "format/little_endian.h"

namespace gossamer {
namespace {

using Shape = std::vector<int64_t>;

template <class Value>
Status Decode(const std::vector<uint8_t>& bytes, SparseMatrix<Value>* weight, int64_t threads = 1) {
  // A copy of exactly the size, so that sanitizers see a read past the end.
  const std::vector<uint8_t> exact(bytes);
  return DecodeSparseWeight(exact.data(), exact.size(), weight, threads);
}

size_t ChecksumBytesOf(const std::vector<uint8_t>& bytes) { return bytes[1] % 4 == 2 ? 4 : 2; }

void Resign(std::vector<uint8_t>* bytes) {
  const size_t end = bytes->size() - ChecksumBytesOf(*bytes);
  const uint32_t checksum = Checksum(bytes->data(), end);
  for (size_t i = end; i < bytes->size(); ++i) (*bytes)[i] = static_cast<uint8_t>(checksum >> (8 * (i - end)));
}

// The first two bytes.
std::vector<uint8_t> Kind(int coder, int value_type, int rank, int biased = 0) {
  return {2, static_cast<uint8_t>(coder + 4 * (value_type + 3 * (rank - 1 + 8 * biased)))};
}

int64_t ElementsOf(const Shape& shape) {
  int64_t elements = 1;
  for (const int64_t extent : shape) elements *= extent;
  return elements;
}

std::vector<int32_t> Drawn(const Shape& shape, double density, int32_t largest, std::mt19937* random) {
  std::vector<int32_t> levels(static_cast<size_t>(ElementsOf(shape)), 0);
  for (int32_t& level : levels) {
    if (!std::bernoulli_distribution(density)(*random)) continue;
    level = std::uniform_int_distribution<int32_t>(1, largest)(*random);
    if (std::bernoulli_distribution(0.5)(*random)) level = -level;
  }
  return levels;
}

const Coding kCodings[] = {{LevelCoder::kMixing, 0, 1}, {LevelCoder::kGridMixing, 7, 1}, {LevelCoder::kSwappedMixing, 0, 1},
                           {LevelCoder::kGaps, 0, 1}, {LevelCoder::kGaps, 0, 1u << 16}};

// Shapes that a coding is for.
bool Fits(const Coding& coding, const Shape& shape) {
  if (coding.coder == LevelCoder::kSwappedMixing) return shape.size() > 1;
  return coding.grid <= ElementsOf(shape) / shape[0];
}

void ExpectSame(const SparseWeight& expected, const SparseWeight& weight) {
  EXPECT_EQ(weight.shape, expected.shape);
  EXPECT_EQ(weight.row_start, expected.row_start);
  EXPECT_EQ(weight.column, expected.column);
  EXPECT_EQ(weight.value, expected.value);
}

// As runtime/tests/test_coding.py, which says why.
TEST(CodedWeight, BytesOfGapsByHand) {
  const int32_t levels[] = {0, -1};
  std::vector<uint8_t> expected = {2, 22, 1, 2, 1, 1, 1, 1, 1, 3, 0xFB, 0xE7, 0xE0, 0, 0, 0, 0};
  Resign(&expected);
  EXPECT_EQ(EncodeCodedWeight({1, 2}, levels, ValueType::kInt8, 1.0f, Coding{LevelCoder::kGaps, 0, 1}), expected);
  SparseByteWeight weight;
  ASSERT_TRUE(Decode(expected, &weight).ok());
  EXPECT_EQ(weight.row_start, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(weight.column, (std::vector<uint32_t>{1}));
  EXPECT_EQ(weight.value, (std::vector<int8_t>{-1}));
  SparseWeight floats;
  EXPECT_FALSE(Decode(expected, &floats).ok());
}

TEST(CodedWeight, TheSameBytesAsInPython) {
  std::vector<int32_t> levels;
  uint32_t number = 1;
  for (int i = 0; i < 20 * 12 * 9; ++i) {
    number = (number * 1103515245u + 12345u) & 0x7FFFFFFFu;
    levels.push_back((number >> 16) % 5 == 0 ? static_cast<int32_t>((number >> 20) % 61) - 30 : 0);
  }
  const std::pair<Coding, uint32_t> expected[] = {{{LevelCoder::kGridMixing, 9, 0}, 0xD2388C6Fu},
                                                  {{LevelCoder::kSwappedMixing, 0, 0}, 0x59A5E26Fu},
                                                  {{LevelCoder::kGaps, 0, 1u << 16}, 0x0B716FFDu}};
  for (const auto& [coding, checksum] : expected) {
    const BiasLevels bias{levels.data(), 0.3f};
    const std::vector<uint8_t> bytes =
        EncodeCodedWeight({20, 12, 3, 3}, levels.data(), ValueType::kFloat32, 0.75f, coding, bias);
    EXPECT_EQ(Checksum(bytes.data(), bytes.size() - 4), checksum);
  }
}

TEST(CodedWeight, ThereAndBack) {
  std::mt19937 random(1);
  for (const Shape& shape : {Shape{1}, {9}, {3, 5}, {16, 9, 3, 3}, {1, 900}, {900, 1}, {8, 24, 3}, {5, 1, 3, 3}}) {
    for (const double density : {0.0, 0.01, 0.2, 0.7, 1.0}) {
      for (const int32_t largest : {1, 2, 19, 20, 21, 127, kLargestLevel}) {
        const std::vector<int32_t> levels = Drawn(shape, density, largest, &random);
        std::vector<float> dense(levels.begin(), levels.end()), halves;
        for (float& value : dense) {
          value *= 0.3f;
          halves.push_back(FloatFromHalf(HalfFromFloat(value)));
        }
        for (const Coding& coding : kCodings) {
          if (!Fits(coding, shape)) continue;
          SparseWeight weight;
          const std::vector<uint8_t> bytes = EncodeCodedWeight(shape, levels.data(), ValueType::kFloat32, 0.3f, coding);
          ASSERT_STREQ(Decode(bytes, &weight, 1 + static_cast<int64_t>(random() % 3)).problem(), "");
          ExpectSame(SparseWeightFromDense(shape, dense.data()), weight);
          ASSERT_TRUE(Decode(EncodeCodedWeight(shape, levels.data(), ValueType::kFloat16, 0.3f, coding), &weight).ok());
          ExpectSame(SparseWeightFromDense(shape, halves.data()), weight);
        }
      }
    }
  }
}

TEST(CodedWeight, BiasesThereAndBack) {
  std::mt19937 random(5);
  for (const Shape& shape : {Shape{1}, {9}, {30, 40}, {16, 9, 3, 3}}) {
    for (const double density : {0.0, 0.2, 1.0}) {
      for (const int32_t largest : {1, 25, kLargestLevel}) {
        const std::vector<int32_t> levels = Drawn(shape, 0.2 * std::round(2 * density), 9, &random);
        const std::vector<int32_t> biases = Drawn({shape[0]}, density, largest, &random);
        for (const Coding& coding : kCodings) {
          if (!Fits(coding, shape)) continue;
          const std::vector<uint8_t> bytes =
              EncodeCodedWeight(shape, levels.data(), ValueType::kFloat32, 0.5f, coding, {biases.data(), 0.3f});
          SparseWeight weight;
          std::vector<float> bias;
          ASSERT_STREQ(DecodeWeightAndBias(bytes.data(), bytes.size(), 2, &weight, &bias).problem(), "");
          ASSERT_EQ(bias.size(), biases.size());
          for (size_t i = 0; i < bias.size(); ++i) EXPECT_EQ(bias[i], static_cast<float>(biases[i]) * 0.3f);
          std::vector<float> dense(levels.begin(), levels.end());
          for (float& value : dense) value *= 0.5f;
          ExpectSame(SparseWeightFromDense(shape, dense.data()), weight);
        }
      }
    }
  }
}

TEST(CodedWeight, Int8ThereAndBack) {
  std::mt19937 random(2);
  for (const Shape& shape : {Shape{7}, {30, 40}, {16, 9, 3, 3}}) {
    std::vector<int8_t> dense(static_cast<size_t>(ElementsOf(shape)));
    for (int8_t& value : dense) value = static_cast<int8_t>(random() % 3 == 0 ? random() : 0);
    dense[0] = -128;
    dense[1] = 127;
    const std::vector<int32_t> levels(dense.begin(), dense.end());
    const SparseByteWeight expected = SparseWeightFromDense(shape, dense.data());
    for (const Coding& coding : kCodings) {
      if (!Fits(coding, shape)) continue;
      SparseByteWeight weight;
      ASSERT_TRUE(Decode(EncodeCodedWeight(shape, levels.data(), ValueType::kInt8, 1.0f, coding), &weight).ok());
      EXPECT_EQ(weight.row_start, expected.row_start);
      EXPECT_EQ(weight.column, expected.column);
      EXPECT_EQ(weight.value, expected.value);
    }
  }
}

TEST(CodedWeight, OnlyInt8HasNoLevelOf128) {
  const int32_t levels[] = {128, -128};
  SparseByteWeight weight;
  for (const Coding& coding : kCodings) {
    if (coding.grid > 0) continue;
    const std::vector<uint8_t> bytes = EncodeCodedWeight({1, 2}, levels, ValueType::kInt8, 1.0f, coding);
    EXPECT_NE(std::string(Decode(bytes, &weight).problem()), "");
  }
}

TEST(CodedWeight, TheShortestIsTaken) {
  std::mt19937 random(3);
  const Shape shape = {40, 10, 3, 3};
  const std::vector<int32_t> levels = Drawn(shape, 0.1, 5, &random);
  const std::vector<uint8_t> bytes = EncodeCodedWeight(shape, levels.data(), ValueType::kFloat32, 1.0f, int64_t{3});
  for (const Coding& coding : {Coding{}, Coding{LevelCoder::kGridMixing, 3, 0}, Coding{LevelCoder::kSwappedMixing, 0, 0}}) {
    EXPECT_LE(bytes.size(), EncodeCodedWeight(shape, levels.data(), ValueType::kFloat32, 1.0f, coding).size());
  }
  const std::vector<int32_t> many(1 << 18, 0);
  EXPECT_EQ(EncodeCodedWeight({512, 512}, many.data(), ValueType::kFloat32, 1.0f, int64_t{0})[1] % 4, 2);
}

// Whoever changes bytes can write the checksum of them too. Under the sanitizers it shows that nothing else is read.
TEST(CodedWeight, ChangedBytes) {
  std::mt19937 random(4);
  const Shape shape = {6, 3, 3};
  const std::vector<int32_t> levels = Drawn(shape, 0.4, 40, &random);
  for (const Coding& coding : kCodings) {
    const int32_t biases[] = {1, 0, -3, 2, 2, 20};
    const std::vector<uint8_t> bytes =
        EncodeCodedWeight(shape, levels.data(), ValueType::kFloat32, 1.0f, coding, {biases, 0.5f});
    int refused = 0;
    for (size_t place = 0; place + 4 < bytes.size(); ++place) {
      for (int change = 1; change < 256; ++change) {
        std::vector<uint8_t> broken = bytes;
        broken[place] = static_cast<uint8_t>(broken[place] ^ change);
        Resign(&broken);
        SparseWeight weight;
        SparseByteWeight of_bytes;
        std::vector<float> bias;
        const std::vector<uint8_t> exact(broken);
        if (DecodeWeightAndBias(exact.data(), exact.size(), 1, &weight, &bias).ok()) {
          EXPECT_TRUE(bias.empty() || bias.size() == static_cast<size_t>(weight.rows));
          EXPECT_EQ(weight.row_start.size(), static_cast<size_t>(weight.rows) + 1);
          EXPECT_EQ(weight.row_start.back(), weight.kept());
          for (const uint32_t column : weight.column) ASSERT_LT(column, static_cast<uint64_t>(weight.columns));
        } else {
          ++refused;
        }
        static_cast<void>(Decode(broken, &of_bytes).ok());
      }
    }
    EXPECT_GT(refused, 1000);
    SparseWeight weight;
    for (size_t size = 0; size < bytes.size(); ++size) {
      std::vector<uint8_t> shorter(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_FALSE(Decode(shorter, &weight).ok());
      if (size < 40) continue;
      Resign(&shorter);
      static_cast<void>(Decode(shorter, &weight).ok());
    }
  }
}

struct Hostile {
  std::vector<uint8_t> kind;
  std::vector<uint8_t> header;
  const char* problem;
};

TEST(CodedWeight, HeadersThatContradictThemselves) {
  const Hostile cases[] = {
      {{2, 192}, {4}, "unknown kind"},
      {{2, 255}, {4}, "unknown kind"},
      {Kind(1, 2, 1), {1, 1, 0}, "two axes are swapped"},
      {Kind(0, 2, 1, 1), {1, 1, 0}, "a bias of int8"},
      {Kind(0, 2, 1), {0, 0, 0}, "an axis of the shape is 0"},
      {Kind(0, 2, 2), {0x80, 0x80, 0x80, 0x80, 4, 0x80, 0x80, 0x80, 0x80, 4, 1, 1}, "the shape is too large"},
      {Kind(0, 2, 1), {4, 5, 1}, "more kept weights than elements"},
      {Kind(0, 2, 1), {4, 1, 0}, "the largest level"},
      {Kind(0, 2, 1), {4, 0, 1}, "the largest level"},
      {Kind(0, 2, 1), {4, 1, 0x81, 1}, "the largest level"},
      {Kind(3, 2, 1), {4, 1, 1, 2}, "the image is not as wide"},
      {Kind(3, 2, 1), {4, 1, 1, 0}, "the image is not as wide"},
      {Kind(0, 2, 2), {0x80, 0x10, 0x80, 8, 1, 1}, "more than 2^20 elements"},
      {Kind(0, 2, 1), {0x84, 0, 1, 1}, "too few bytes for a header"},  // 4, written longer than it is
      {Kind(0, 2, 1), {4, 0, 0, 9}, "the stream ends"},
      {Kind(2, 2, 1), {4, 0, 0, 0, 9}, "not the whole weight"},
      {Kind(2, 2, 2), {1, 0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0}, "2^28 columns"},
      {Kind(2, 2, 1), {4, 0, 0, 0xFF, 0x7F}, "more groups of rows than bytes"},
      {Kind(2, 2, 1), {4, 1, 1, 1, 3, 1, 0}, "not the whole weight"},
      {Kind(2, 2, 1), {4, 1, 1, 1, 4, 1, 9}, "larger than the weight"},
      // More weights than a stream of no bytes can have signs.
      {Kind(2, 2, 1), {0x80, 2, 0x80, 2, 1, 1, 0x80, 2, 0x80, 2, 0}, "larger than the weight"},
  };
  for (const Hostile& hostile : cases) {
    std::vector<uint8_t> bytes = hostile.kind;
    bytes.insert(bytes.end(), hostile.header.begin(), hostile.header.end());
    bytes.resize(bytes.size() + ChecksumBytesOf(bytes));
    Resign(&bytes);
    SparseByteWeight weight;
    EXPECT_NE(std::string(Decode(bytes, &weight).problem()).find(hostile.problem), std::string::npos)
        << hostile.problem << ", got " << Decode(bytes, &weight).problem();
  }
  const Hostile of_floats[] = {
      {Kind(0, 0, 1), {4, 0, 0, 0x80, 0xBF, 0, 0}, "too few bytes for a header"},  // a step written longer than it is
      {Kind(0, 0, 1), {4, 0, 0, 0, 0}, "the step"},
      {Kind(0, 0, 1), {4, 0, 0, 0x80, 0x7F}, "the step"},
      {Kind(0, 0, 1, 1), {4, 0, 0, 0x80, 0x3F, 5, 1, 0x80, 0x3F}, "more kept weights"},
      {Kind(0, 0, 1, 1), {4, 0, 0, 0x80, 0x3F, 1, 1, 0, 0}, "the step"},
      {Kind(2, 0, 1, 1), {0x81, 0x80, 0x40, 0, 0, 0x80, 0x3F, 0, 0, 0x80, 0x3F, 0}, "a bias of more than 2^20"},
  };
  for (const Hostile& hostile : of_floats) {
    std::vector<uint8_t> bytes = hostile.kind;
    bytes.insert(bytes.end(), hostile.header.begin(), hostile.header.end());
    bytes.resize(bytes.size() + ChecksumBytesOf(bytes));
    Resign(&bytes);
    SparseWeight weight;
    EXPECT_NE(std::string(Decode(bytes, &weight).problem()).find(hostile.problem), std::string::npos)
        << hostile.problem << ", got " << Decode(bytes, &weight).problem();
  }
  for (const float step : {0.0f, INFINITY}) {
    const int32_t level = 1;
    const std::vector<uint8_t> bytes = EncodeCodedWeight({1}, &level, ValueType::kFloat32, step, Coding{});
    SparseWeight weight;
    EXPECT_NE(std::string(Decode(bytes, &weight).problem()).find("the step"), std::string::npos);
  }
}

}  // namespace
}  // namespace gossamer
