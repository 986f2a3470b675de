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
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
// Sixteen values at a time: adding with saturation takes an index that is not among them to 128 or beyond, which gives 0, and
// the others to where their lowest four bits are the same. Four instructions for 16 of the 256 values; with vectors of 16
// bytes it would be no gain over a byte at a time.
HWY_INLINE int64_t LookUpVectors(const uint8_t* HWY_RESTRICT table, uint8_t* HWY_RESTRICT bytes, int64_t count) {
  const hn::CappedTag<uint8_t, 64> d;
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
