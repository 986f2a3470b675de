// A function of bytes as a table of 256 values.
#if defined(GOSSAMER_KERNELS_TABLE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_TABLE_INL_H_
#undef GOSSAMER_KERNELS_TABLE_INL_H_
#else
#define GOSSAMER_KERNELS_TABLE_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/quantised_panel.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
// A quarter of the table at a time; what is in another one gives 0.
HWY_INLINE int64_t LookUpVectors(const uint8_t* HWY_RESTRICT table, uint8_t* HWY_RESTRICT bytes, int64_t count) {
  const uint8x16x4_t quarters[4] = {vld1q_u8_x4(table), vld1q_u8_x4(table + 64), vld1q_u8_x4(table + 128),
                                    vld1q_u8_x4(table + 192)};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const uint8x16_t index = vld1q_u8(bytes + i);
    uint8x16_t found = vqtbl4q_u8(quarters[0], index);
    for (uint8_t k = 1; k < 4; ++k) {
      found = vqtbx4q_u8(found, quarters[k], vsubq_u8(index, vdupq_n_u8(static_cast<uint8_t>(64 * k))));
    }
    vst1q_u8(bytes + i, found);
  }
  return i;
}
#elif HWY_TARGET == HWY_AVX3
// A table of 128 words, of which the index but for its lowest bit tells one: 64 of them at a time.
HWY_INLINE __m512i LookUpWords(const __m512i (&words)[4], __m512i index) {
  const __m512i word = _mm512_srli_epi16(index, 1);
  const __m512i low = _mm512_permutex2var_epi16(words[0], word, words[1]);
  const __m512i high = _mm512_permutex2var_epi16(words[2], word, words[3]);
  const __m512i found = _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(index, _mm512_set1_epi16(128)), high);
  const __m512i bits = _mm512_and_si512(_mm512_slli_epi16(index, 3), _mm512_set1_epi16(8));
  return _mm512_srlv_epi16(found, bits);
}

HWY_INLINE int64_t LookUpVectors(const uint8_t* HWY_RESTRICT table, uint8_t* HWY_RESTRICT bytes, int64_t count) {
  const __m512i words[4] = {_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64), _mm512_loadu_si512(table + 128),
                            _mm512_loadu_si512(table + 192)};
  const __m512i first = _mm512_set1_epi16(255);
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const __m512i index = _mm512_loadu_si512(bytes + i);
    const __m512i even = LookUpWords(words, _mm512_and_si512(index, first));
    const __m512i odd = LookUpWords(words, _mm512_srli_epi16(index, 8));
    _mm512_storeu_si512(bytes + i, _mm512_or_si512(_mm512_and_si512(even, first), _mm512_slli_epi16(odd, 8)));
  }
  return i;
}
#elif HWY_TARGET == HWY_AVX2
// Sixteen values at a time: adding with saturation takes an index that is not among them to 128 or beyond, which gives 0, and
// the others to where their lowest four bits are the same. Four instructions for 16 of the 256 values; with vectors of 16
// bytes it would be no gain over a byte at a time.
HWY_INLINE int64_t LookUpVectors(const uint8_t* HWY_RESTRICT table, uint8_t* HWY_RESTRICT bytes, int64_t count) {
  const hn::CappedTag<uint8_t, 32> d;
  const int64_t lanes = static_cast<int64_t>(hn::MaxLanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto index = hn::LoadU(d, bytes + i);
    auto found = hn::Zero(d);
    for (size_t k = 0; k < 256; k += 16) {
      const auto within = hn::SaturatedAdd(hn::Sub(index, hn::Set(d, static_cast<uint8_t>(k))), hn::Set(d, uint8_t{0x70}));
      found = hn::Or(found, hn::TableLookupBytesOr0(hn::LoadDup128(d, table + k), within));
    }
    hn::StoreU(found, d, bytes + i);
  }
  return i;
}
#else
HWY_INLINE int64_t LookUpVectors(const uint8_t*, uint8_t*, int64_t) { return 0; }
#endif

// bytes[i] = table[bytes[i]], where the table is that of panels' bytes (PanelTable).
HWY_INLINE void LookUp(const PanelByte* table, PanelByte* bytes, int64_t count) {
  const uint8_t* const from = reinterpret_cast<const uint8_t*>(table);
  uint8_t* const to = reinterpret_cast<uint8_t*>(bytes);
  for (int64_t i = LookUpVectors(from, to, count); i < count; ++i) to[i] = from[to[i]];
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_TABLE_INL_H_
