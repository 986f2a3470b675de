// What a model may ask for. A file declares sizes at no cost in bytes, so everything that is made before a tensor of that
// size exists is bounded here; docs/format.md lists the limits for readers.
#ifndef GOSSAMER_KERNELS_LIMITS_H_
#define GOSSAMER_KERNELS_LIMITS_H_

#include <cstdint>

namespace gossamer {

// Channels, height, width, groups, strides and dilations.
inline constexpr int64_t kMaximumExtent = int64_t{1} << 24;
// Height times width of an image: 8192 x 8192. A plan has an entry of some hundred bytes for each tile of about 60 pixels.
inline constexpr int64_t kMaximumPixels = int64_t{1} << 26;
// Pixels times channels of an image.
inline constexpr int64_t kMaximumImageFloats = int64_t{1} << 32;
// Positions of a kernel.
inline constexpr int64_t kMaximumTaps = int64_t{1} << 14;
inline constexpr int64_t kMaximumPadding = int64_t{1} << 16;
// Copies that bring the pixels of all tiles of an image to where a kernel reads them, 24 bytes each: 384 MiB.
inline constexpr int64_t kMaximumStageCopies = int64_t{1} << 24;
// Blocks of input channels, over all threads, 40 bytes each.
inline constexpr int64_t kMaximumStreams = int64_t{1} << 20;
// Scratch of one thread: 256 MiB.
inline constexpr int64_t kMaximumScratchFloats = int64_t{1} << 26;

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_LIMITS_H_
