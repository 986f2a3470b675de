// Panels of bytes: quantised activations between sparse ops.
//
// Four neighbouring channels of a pixel are one lane of 32 bits,  [image][tile][channel / 4][pitch][4],  so that a panel of
// bytes lies as one of floats with a quarter of the channels does: the same tiles, the same staging. Channels that fill up
// the last four hold any values; weights are zeros there.
#ifndef GOSSAMER_KERNELS_QUANTISED_PANEL_H_
#define GOSSAMER_KERNELS_QUANTISED_PANEL_H_

#include <cstdint>
#include <vector>

#include "kernels/panel.h"
#include "kernels/quantised_weight.h"
#include "kernels/share.h"

namespace gossamer {

// A quantised value, 0 to 255, is stored as the byte that the processor multiplies by signed weights: x86 takes unsigned
// ones, 64-bit ARM signed ones, so there a panel holds the value less 128. Zero points of panels are less by it too.
#if defined(__aarch64__)
using PanelByte = int8_t;
inline constexpr int32_t kPanelOffset = 128;
#else
using PanelByte = uint8_t;
inline constexpr int32_t kPanelOffset = 0;
#endif

inline PanelByte PanelByteOf(int32_t value) { return static_cast<PanelByte>(value - kPanelOffset); }
inline int32_t ValueOf(PanelByte byte) { return byte + kPanelOffset; }

// Four times the same value: what a lane of padding holds.
inline int32_t PanelLaneOf(int32_t value) {
  return static_cast<int32_t>(static_cast<uint8_t>(PanelByteOf(value)) * 0x01010101u);
}

// A table of 256 values, or of none, as one from the bits of a panel's byte to a panel's byte.
std::vector<PanelByte> PanelTable(const std::vector<uint8_t>& table);

// A panel tensor of bytes is declared as [images, storage, height, width]: four times what a tensor of as many lanes has,
// and one more for each channel that is missing from the last lane, for every number of channels has another one.
inline int64_t QuantisedStorage(const PanelLayout& layout, int64_t channels) {
  const int64_t quads = QuadsOf(channels);
  return kQuad * layout.storage_channels(quads) + kQuad * quads - channels;
}
// The channels of such a tensor, 0 if it has those of none.
inline int64_t ChannelsOfQuantised(const PanelLayout& layout, int64_t storage) {
  const int64_t channels = kQuad * layout.channels_of(storage / kQuad) - storage % kQuad;
  return channels >= 1 ? channels : 0;
}
// Lanes from one image of such a tensor to the next.
inline int64_t QuantisedStride(const PanelLayout& layout, int64_t channels) {
  return layout.image_stride(QuadsOf(channels));
}

// What a quantised value stands for: scale * (value - zero point).
struct Quantisation {
  float scale = 1.0f;
  int32_t zero_point = 0;
};

// As ONNX's QuantizeLinear: a value of the image over the scale, rounded to the nearest, ties to even, plus the zero point,
// within 0 and 255. What is not a number becomes 0.
inline uint8_t Quantised(const Quantisation& q, float value) {
  constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23: adding it rounds
  const float low = static_cast<float>(-q.zero_point), high = static_cast<float>(255 - q.zero_point);
  const float scaled = value / q.scale;
  const float within = scaled > low ? (scaled < high ? scaled : high) : low;
  return static_cast<uint8_t>(static_cast<int32_t>((within + kRounding) - kRounding) + q.zero_point);
}

// Between [channels][height][width] and the panel of one image: some of its tiles, some of their lanes. Channels that fill
// up the last lane become the zero point. Bytes of the image are values but for the bits in `flipped`: 128 for int8.
void QuantisedFromPlanar(const PanelLayout& layout, int64_t channels, const uint8_t* planar, uint8_t flipped,
                         int32_t zero_point, Range tiles, Range of_quads, PanelByte* panel);
void QuantisedFromPlanar(const PanelLayout& layout, int64_t channels, const float* planar, const Quantisation& q,
                         Range tiles, Range of_quads, PanelByte* panel);
void PlanarFromQuantised(const PanelLayout& layout, int64_t channels, const PanelByte* panel, Range tiles,
                         Range of_quads, uint8_t* planar);
void PlanarFromQuantised(const PanelLayout& layout, int64_t channels, const PanelByte* panel, const Quantisation& q,
                         Range tiles, Range of_quads, float* planar);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_QUANTISED_PANEL_H_
