#include "format/sparse_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "format/checksum.h"
#include "format/half.h"
#include "tests/reference.h"

namespace gossamer {
namespace {

Status Decode(const std::vector<uint8_t>& bytes, SparseWeight* weight) {
  // A copy of exactly the size, so that sanitizers see a read past the end.
  const std::vector<uint8_t> exact(bytes);
  return DecodeSparseWeight(exact.data(), exact.size(), weight);
}

std::vector<float> Dense(const SparseWeight& weight) {
  std::vector<float> dense(static_cast<size_t>(weight.rows * weight.columns), 0.0f);
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      dense[row * static_cast<size_t>(weight.columns) + weight.column[i]] = weight.value[i];
    }
  }
  return dense;
}

void Resign(std::vector<uint8_t>* bytes) {
  const uint32_t checksum = Checksum(bytes->data(), bytes->size() - 4);
  for (size_t i = 0; i < 4; ++i) (*bytes)[bytes->size() - 4 + i] = static_cast<uint8_t>(checksum >> (8 * i));
}

TEST(Checksum, IsTheOneOfZlib) {
  const char text[] = "123456789";
  EXPECT_EQ(Checksum(reinterpret_cast<const uint8_t*>(text), 9), 0xCBF43926u);
  EXPECT_EQ(Checksum(nullptr, 0), 0u);
}

TEST(Half, EveryValueThereAndBack) {
  for (uint32_t half = 0; half <= 0xFFFF; ++half) {
    const float value = FloatFromHalf(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_GT(half & 0x3FFu, 0u);
    } else {
      ASSERT_EQ(HalfFromFloat(value), half);
    }
  }
}

TEST(Half, Rounds) {
  EXPECT_EQ(FloatFromHalf(0x3C00), 1.0f);
  EXPECT_EQ(FloatFromHalf(0xC000), -2.0f);
  EXPECT_EQ(FloatFromHalf(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(HalfFromFloat(1.0f + std::ldexp(1.0f, -11)), 0x3C00);                            // a tie, to even
  EXPECT_EQ(HalfFromFloat(1.0f + 3 * std::ldexp(1.0f, -11)), 0x3C02);                        // a tie, to even
  EXPECT_EQ(HalfFromFloat(1.0f + std::ldexp(1.0f, -11) + std::ldexp(1.0f, -20)), 0x3C01);
  EXPECT_EQ(HalfFromFloat(65519.0f), 0x7BFF);
  EXPECT_EQ(HalfFromFloat(65520.0f), 0x7C00);
  EXPECT_EQ(HalfFromFloat(1e30f), 0x7C00);
  EXPECT_TRUE(std::isnan(FloatFromHalf(HalfFromFloat(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(SparseWeight, BytesByHand) {
  const std::vector<float> dense = {0.0f, 1.0f, 0.0f, 0.0f, -2.0f, 0.0f};
  const std::vector<uint8_t> expected = {
      'G', 'S', 'P', 'W', 1, 0, 1, 2,      // version 1, bitmask, fp16, rank 2
      2,   0,   0,   0,   0, 0, 0, 0,      // kept
      1,   0,   0,   0,   0, 0, 0, 0,      // bytes of positions
      2,   0,   0,   0,   3, 0, 0, 0,      // shape
      0x12,                                // elements 1 and 4
      0x00, 0x3C, 0x00, 0xC0,              // 1 and -2
  };
  const std::vector<uint8_t> bytes = EncodeSparseWeight({2, 3}, dense.data(), ValueType::kFloat16);
  ASSERT_EQ(bytes.size(), expected.size() + 4);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));

  SparseWeight weight;
  ASSERT_TRUE(Decode(bytes, &weight).ok());
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(weight.row_start, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(weight.column, (std::vector<uint32_t>{1, 1}));
  EXPECT_EQ(weight.value, (std::vector<float>{1.0f, -2.0f}));
}

TEST(SparseWeight, BytesOfInt8ByHand) {
  const std::vector<int8_t> dense = {0, 1, 0, 0, -128, 0};
  const std::vector<uint8_t> expected = {
      'G', 'S', 'P', 'W', 1, 0, 2, 2,  // version 1, bitmask, int8, rank 2
      2,   0,   0,   0,   0, 0, 0, 0,  // kept
      1,   0,   0,   0,   0, 0, 0, 0,  // bytes of positions
      2,   0,   0,   0,   3, 0, 0, 0,  // shape
      0x12,                            // elements 1 and 4
      0x01, 0x80,                      // 1 and -128
  };
  const std::vector<uint8_t> bytes = EncodeSparseWeight({2, 3}, dense.data());
  ASSERT_EQ(bytes.size(), expected.size() + 4);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));

  SparseByteWeight weight;
  ASSERT_TRUE(DecodeSparseWeight(bytes.data(), bytes.size(), &weight).ok());
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(weight.row_start, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(weight.column, (std::vector<uint32_t>{1, 1}));
  EXPECT_EQ(weight.value, (std::vector<int8_t>{1, -128}));

  SparseWeight floats;
  EXPECT_FALSE(Decode(bytes, &floats).ok());
  const float one = 1.0f;
  const std::vector<uint8_t> of_floats = EncodeSparseWeight({1, 1}, &one, ValueType::kFloat32);
  EXPECT_FALSE(DecodeSparseWeight(of_floats.data(), of_floats.size(), &weight).ok());
}

// Rows of [channels 0 to 3, 4][2 places].
TEST(SparseWeight, QuadsByHand) {
  const std::vector<int8_t> dense = {0, 1, 0, 2, 0, 3, 0, 4, 0, 0,  //
                                     0, 0, 0, 0, 0, 0, 0, 0, -5, 0};
  const std::vector<uint8_t> expected = {
      'G', 'S', 'P', 'W', 1, 2, 2, 3,              // version 1, bitmask of quads, int8, rank 3
      2,   0,   0,   0,   0, 0, 0, 0,              // kept quads
      1,   0,   0,   0,   0, 0, 0, 0,              // bytes of positions
      2,   0,   0,   0,   5, 0, 0, 0, 2, 0, 0, 0,  // shape
      0x42,                                        // quads 1 and 6 of two rows of four
      1,   2,   3,   4,                            // channels 0 to 3 at the second place
      251, 0,   0,   0,                            // channel 4 at the first
  };
  const std::vector<uint8_t> bytes = EncodeSparseWeight({2, 5, 2}, dense.data(), PositionCode::kQuadBitmask);
  ASSERT_EQ(bytes.size(), expected.size() + 4);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));
  SparseByteWeight weight;
  ASSERT_TRUE(DecodeSparseWeight(bytes.data(), bytes.size(), &weight).ok());
  EXPECT_EQ(weight.column, (std::vector<uint32_t>{1, 3, 5, 7, 8}));
  EXPECT_EQ(weight.value, (std::vector<int8_t>{1, 2, 3, 4, -5}));
  EXPECT_EQ(weight.row_start, (std::vector<uint32_t>{0, 4, 5}));

  std::vector<uint8_t> broken = bytes;
  broken[broken.size() - 4 - 3] = 7;  // of a channel that there is not
  Resign(&broken);
  const Status behind = DecodeSparseWeight(broken.data(), broken.size(), &weight);
  ASSERT_FALSE(behind.ok());
  EXPECT_NE(std::string(behind.problem()).find("behind the last channel"), std::string::npos);
  broken = bytes;
  broken[6] = 0;  // quads of floats
  Resign(&broken);
  SparseWeight floats;
  EXPECT_FALSE(DecodeSparseWeight(broken.data(), broken.size(), &floats).ok());
}

TEST(SparseWeight, Int8ThereAndBack) {
  std::mt19937 random(5);
  for (const double density : {0.0, 0.01, 0.1, 0.5, 1.0}) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 5}, {16, 9, 3, 3}, {1, 1000}, {1000, 1}, {8, 64, 3}}) {
      size_t elements = 1;
      for (const int64_t extent : shape) elements *= static_cast<size_t>(extent);
      std::vector<int8_t> dense(elements, 0);
      for (int8_t& value : dense) {
        if (std::bernoulli_distribution(density)(random)) value = static_cast<int8_t>(random());
      }
      const SparseByteWeight expected = SparseWeightFromDense(shape, dense.data());
      size_t shortest = SIZE_MAX;
      for (const PositionCode code : {PositionCode::kBitmask, PositionCode::kGaps, PositionCode::kQuadBitmask,
                                      PositionCode::kQuadGaps}) {
        const std::vector<uint8_t> bytes = EncodeSparseWeight(shape, dense.data(), code);
        SparseByteWeight weight;
        ASSERT_TRUE(DecodeSparseWeight(bytes.data(), bytes.size(), &weight).ok());
        EXPECT_EQ(weight.row_start, expected.row_start);
        EXPECT_EQ(weight.column, expected.column);
        EXPECT_EQ(weight.value, expected.value);
        shortest = std::min(shortest, bytes.size());
      }
      EXPECT_EQ(EncodeSparseWeight(shape, dense.data()).size(), shortest);
    }
  }
}

TEST(SparseWeight, GapsByHand) {
  std::vector<float> dense(600, 0.0f);
  dense[0] = 1.0f;
  dense[255] = 2.0f;  // 254 zeros between
  dense[511] = 3.0f;  // 255 zeros between: a long gap, then none
  const std::vector<uint8_t> bytes = EncodeSparseWeight({1, 600}, dense.data(), ValueType::kFloat32, PositionCode::kGaps);
  const std::vector<uint8_t> gaps(bytes.begin() + 32, bytes.begin() + 36);
  EXPECT_EQ(gaps, (std::vector<uint8_t>{0, 254, 255, 0}));
  SparseWeight weight;
  ASSERT_TRUE(Decode(bytes, &weight).ok());
  EXPECT_EQ(Dense(weight), dense);
}

TEST(SparseWeight, ThereAndBack) {
  std::mt19937 random(1);
  for (const double density : {0.0, 0.001, 0.01, 0.1, 0.5, 1.0}) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1}, {7}, {3, 5}, {16, 9, 3, 3}, {1, 1000}, {1000, 1}}) {
      size_t elements = 1;
      for (const int64_t extent : shape) elements *= static_cast<size_t>(extent);
      const std::vector<float> dense = RandomSparse(elements, density, &random);
      for (const PositionCode code : {PositionCode::kBitmask, PositionCode::kGaps}) {
        for (const ValueType type : {ValueType::kFloat32, ValueType::kFloat16}) {
          SparseWeight weight;
          const Status status = Decode(EncodeSparseWeight(shape, dense.data(), type, code), &weight);
          ASSERT_TRUE(status.ok()) << status.problem();
          const std::vector<float> back = Dense(weight);
          for (size_t i = 0; i < elements; ++i) {
            if (type == ValueType::kFloat32) {
              ASSERT_EQ(back[i], dense[i]);
            } else {
              ASSERT_NEAR(back[i], dense[i], 1e-3 * std::abs(dense[i]) + 1e-7);
            }
          }
        }
      }
    }
  }
}

TEST(SparseWeight, TakesTheShorterCode) {
  std::mt19937 random(2);
  const std::vector<float> thin = RandomSparse(100000, 0.01, &random);
  const std::vector<float> thick = RandomSparse(100000, 0.3, &random);
  EXPECT_EQ(EncodeSparseWeight({100, 1000}, thin.data(), ValueType::kFloat32)[5], 1);
  EXPECT_EQ(EncodeSparseWeight({100, 1000}, thick.data(), ValueType::kFloat32)[5], 0);
}

TEST(SparseWeight, RefusesEveryTruncationAndEveryFlippedBit) {
  std::mt19937 random(3);
  const std::vector<float> dense = RandomSparse(60, 0.3, &random);
  for (const PositionCode code : {PositionCode::kBitmask, PositionCode::kGaps}) {
    const std::vector<uint8_t> bytes = EncodeSparseWeight({6, 10}, dense.data(), ValueType::kFloat32, code);
    SparseWeight weight;
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(Decode(std::vector<uint8_t>(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)), &weight).ok());
    }
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      std::vector<uint8_t> damaged = bytes;
      damaged[bit / 8] = static_cast<uint8_t>(damaged[bit / 8] ^ (1u << (bit % 8)));
      EXPECT_FALSE(Decode(damaged, &weight).ok());
    }
    EXPECT_FALSE(DecodeSparseWeight(nullptr, 0, &weight).ok());
  }
}

// A hostile file has a right checksum: whatever decodes must then be in order.
TEST(SparseWeight, WhatDecodesIsInOrder) {
  std::mt19937 random(4);
  const std::vector<float> dense = RandomSparse(60, 0.3, &random);
  int accepted = 0;
  for (const PositionCode code : {PositionCode::kBitmask, PositionCode::kGaps}) {
    const std::vector<uint8_t> bytes = EncodeSparseWeight({6, 10}, dense.data(), ValueType::kFloat16, code);
    for (int round = 0; round < 20000; ++round) {
      std::vector<uint8_t> hostile = bytes;
      for (int change = 0; change < 1 + round % 3; ++change) {
        const size_t place = random() % (hostile.size() - 4);
        hostile[place] = static_cast<uint8_t>(random() % 3 == 0 ? 255 : random());
      }
      if (round % 7 == 0) hostile.resize(40 + random() % (hostile.size() - 40));
      Resign(&hostile);
      SparseWeight weight;
      if (!Decode(hostile, &weight).ok()) continue;
      ++accepted;
      ASSERT_EQ(weight.row_start.size(), static_cast<size_t>(weight.rows) + 1);
      ASSERT_EQ(weight.row_start.front(), 0u);
      ASSERT_EQ(weight.row_start.back(), weight.value.size());
      ASSERT_EQ(weight.column.size(), weight.value.size());
      for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
        ASSERT_LE(weight.row_start[row], weight.row_start[row + 1]);
        for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
          ASSERT_LT(weight.column[i], static_cast<uint64_t>(weight.columns));
          if (i > weight.row_start[row]) { ASSERT_LT(weight.column[i - 1], weight.column[i]); }
        }
      }
    }
  }
  EXPECT_GT(accepted, 100);  // otherwise this tested nothing
}

TEST(SparseWeight, NamesWhatIsWrong) {
  const float dense[4] = {0.0f, 1.0f, 2.0f, 0.0f};
  const std::vector<uint8_t> good = EncodeSparseWeight({2, 2}, dense, ValueType::kFloat32, PositionCode::kBitmask);
  const auto problem = [&](size_t place, uint8_t value) {
    std::vector<uint8_t> bytes = good;
    bytes[place] = value;
    Resign(&bytes);
    SparseWeight weight;
    return std::string(Decode(bytes, &weight).problem());
  };
  EXPECT_NE(problem(0, 'X').find("GSPW"), std::string::npos);
  EXPECT_NE(problem(4, 3).find("version"), std::string::npos);
  EXPECT_NE(problem(5, 2).find("quads"), std::string::npos);
  EXPECT_NE(problem(5, 4).find("position code"), std::string::npos);
  EXPECT_NE(problem(6, 2).find("int8"), std::string::npos);
  EXPECT_NE(problem(6, 3).find("value type"), std::string::npos);
  EXPECT_NE(problem(7, 0).find("rank"), std::string::npos);
  EXPECT_NE(problem(8, 3).find("kept weights"), std::string::npos);
  EXPECT_NE(problem(24, 0).find("axis"), std::string::npos);
  EXPECT_NE(problem(24, 200).find("bitmask"), std::string::npos);
  EXPECT_NE(problem(32, 0x16).find("bitmask"), std::string::npos);  // one bit more
  EXPECT_NE(problem(32, 0x12).find("after"), std::string::npos);    // a bit past the end
}

}  // namespace
}  // namespace gossamer
