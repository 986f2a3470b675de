// Tensors of bytes and scratch memory as the lanes of 32 bits that kernels of bytes read. ONNX Runtime aligns tensors to 64
// bytes.
#ifndef GOSSAMER_ORT_LANES_H_
#define GOSSAMER_ORT_LANES_H_

#include <cstdint>

#include "kernels/quantised_panel.h"

namespace gossamer {

inline int32_t* LanesOf(uint8_t* bytes) { return reinterpret_cast<int32_t*>(bytes); }
inline const int32_t* LanesOf(const uint8_t* bytes) { return reinterpret_cast<const int32_t*>(bytes); }
inline int32_t* LanesOf(float* scratch) { return reinterpret_cast<int32_t*>(scratch); }

inline PanelByte* PanelBytesOf(uint8_t* bytes) { return reinterpret_cast<PanelByte*>(bytes); }
inline const PanelByte* PanelBytesOf(const uint8_t* bytes) { return reinterpret_cast<const PanelByte*>(bytes); }

}  // namespace gossamer

#endif  // GOSSAMER_ORT_LANES_H_
