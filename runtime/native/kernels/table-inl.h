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

// bytes[i] = table[bytes[i]], where the table is that of panels' bytes (PanelTable).
HWY_INLINE void LookUp(const PanelByte* HWY_RESTRICT table, PanelByte* HWY_RESTRICT bytes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) bytes[i] = table[static_cast<uint8_t>(bytes[i])];
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_TABLE_INL_H_
