// Images in pieces, dealt to the threads as a convolution's are.
#ifndef GOSSAMER_ORT_PIECES_H_
#define GOSSAMER_ORT_PIECES_H_

#include "kernels/panel.h"
#include "ort/parallel.h"

namespace gossamer {

// Calls run(image, tiles, channels) for pieces of images of so many channels of the panel.
template <class Run>
void ForEachPiece(const Ort::KernelContext& context, const PanelLayout& layout, int64_t images, int64_t channels,
                  int64_t threads, const Run& run) {
  const bool by_channels = layout.dealing == Dealing::kChannels;
  const int64_t pieces = by_channels ? threads : layout.tiles();
  ParallelStealing(context, images * pieces, threads, 1, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / pieces, piece = item % pieces;
      if (by_channels) {
        run(image, Range{0, layout.tiles()}, ShareOf(channels, pieces, piece));
      } else {
        run(image, Range{piece, piece + 1}, Range{0, channels});
      }
    }
  });
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PIECES_H_
