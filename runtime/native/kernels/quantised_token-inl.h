// Tokens as lanes of four features, and floats to and from them.
#if defined(GOSSAMER_KERNELS_QUANTISED_TOKEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_QUANTISED_TOKEN_INL_H_
#undef GOSSAMER_KERNELS_QUANTISED_TOKEN_INL_H_
#else
#define GOSSAMER_KERNELS_QUANTISED_TOKEN_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "kernels/copy-inl.h"
#include "kernels/quantised_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct TokenRows {
  const int32_t* lanes;
  int64_t pitch;
};

// `count` features of each token, of which there are `features` from one to the next. Copied where they are no whole lanes;
// what fills up the last lane is then anything.
inline TokenRows RowsOfTokens(const uint8_t* from, int64_t features, int64_t count, int64_t tokens, int32_t* copy) {
  if (features % kQuad == 0 && count % kQuad == 0) return {reinterpret_cast<const int32_t*>(from), features / kQuad};
  const int64_t quads = QuadsOf(count);
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(copy + t * quads, from + t * features, static_cast<size_t>(count));
  }
  return {copy, quads};
}

// Between values and the bytes of panels that are signed. Whole vectors: memory goes on behind.
inline void FlipSigns(int32_t* lanes, int64_t count) {
  const ByteTag d;
  const auto signs = hn::Set(d, static_cast<int32_t>(0x80808080u));
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(kLanes)) {
    hn::StoreU(hn::Xor(hn::LoadU(d, lanes + i), signs), d, lanes + i);
  }
}

// Adding it to a number of less than 2^22 leaves the number, rounded to the nearest integer, ties to even, in the lowest bits.
inline constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23

// The lowest byte of each lane.
HWY_INLINE void StoreBytes(ByteVector lanes, PanelByte* to) {
  uint8_t* const unsigned_to = reinterpret_cast<uint8_t*>(to);
#if HWY_TARGET == HWY_AVX3
  _mm_storeu_si128(reinterpret_cast<__m128i*>(unsigned_to), _mm512_cvtepi32_epi8(lanes.raw));
#else
  const hn::Rebind<uint8_t, ByteTag> bytes;
  hn::StoreU(hn::TruncateTo(bytes, hn::BitCast(hn::RebindToUnsigned<ByteTag>(), lanes)), bytes, unsigned_to);
#endif
}

// max |x| of a token's features, infinity or NaN if one of them is. As integers, magnitudes are in the same order, and what is
// not a number comes last.
HWY_INLINE float LargestMagnitude(const float* HWY_RESTRICT from, int64_t features) {
  const FloatTag df;
  const ByteTag d;
  auto most = hn::Zero(d);
  ForEachVector(
      features,
      [&](int64_t i) HWY_ATTR { most = hn::Max(most, hn::BitCast(d, hn::Abs(hn::LoadU(df, from + i)))); },
      [&](int64_t i, size_t rest) HWY_ATTR {
        most = hn::Max(most, hn::BitCast(d, hn::Abs(hn::LoadN(df, from + i, rest))));
      });
  const int32_t bits = hn::ReduceMax(d, most);
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  return magnitude;
}

// Bytes of a token: round(x * (127 / max |x|)), ties to even, around a zero point of 128. Returns max |x| / 127, and 1 where
// all of x is 0. What is not a finite number makes the whole token NaN. Whole vectors: memory goes on behind.
HWY_INLINE float QuantiseToken(const float* HWY_RESTRICT from, int64_t features, PanelByte* HWY_RESTRICT to) {
  const float most = LargestMagnitude(from, features);
  const bool finite = most < std::numeric_limits<float>::infinity();
  // Of numbers below 2^-121 the factor is infinite: they are taken as 0.
  const bool counts = finite && most > 4e-37f;
  const FloatTag df;
  const ByteTag d;
  const auto factor = hn::Set(df, counts ? 127.0f / most : 0.0f);
  const auto store = [&](hn::Vec<FloatTag> x, int64_t i) HWY_ATTR {
    const auto rounded = hn::BitCast(d, hn::Add(hn::Mul(x, factor), hn::Set(df, kRounding)));
    StoreBytes(hn::Add(rounded, hn::Set(d, 128 - kPanelOffset)), to + i);
  };
  ForEachVector(
      features, [&](int64_t i) HWY_ATTR { store(hn::LoadU(df, from + i), i); },
      [&](int64_t i, size_t rest) HWY_ATTR { store(hn::LoadN(df, from + i, rest), i); });
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return counts ? most / 127.0f : 1.0f;
}

// What becomes of an output's sums.
struct RowScale {
  float scale;
  float bias;
  int32_t more;  // than the sums that are given
};

// to[t] = (float(sums[t] + more) * scale) * token_scale[t] + bias. Whole vectors: memory goes on behind all of them.
inline void DequantiseRow(const int32_t* HWY_RESTRICT sums, const RowScale& row, const float* HWY_RESTRICT token_scale,
                          int64_t tokens, float* HWY_RESTRICT to) {
  const ByteTag d;
  const FloatTag df;
  for (int64_t t = 0; t < tokens; t += static_cast<int64_t>(kLanes)) {
    const auto sum = hn::Add(hn::LoadU(d, sums + t), hn::Set(d, row.more));
    const auto weighted = hn::Mul(hn::ConvertTo(df, sum), hn::Set(df, row.scale));
    hn::StoreU(hn::Add(hn::Mul(weighted, hn::LoadU(df, token_scale + t)), hn::Set(df, row.bias)), df, to + t);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_QUANTISED_TOKEN_INL_H_
