#include "kernels/token_tiles.h"

namespace gossamer {

std::vector<int64_t> FirstRows(const ProductPlan& product) {
  std::vector<int64_t> first_row(product.slices.size() + 1, product.shape.output_channels);
  for (size_t slice = product.slices.size(); slice-- > 0;) {
    const std::vector<int32_t>& rows = product.slices[slice].rows;
    const auto least = std::min_element(rows.begin(), rows.end());
    first_row[slice] = least == rows.end() ? first_row[slice + 1] : *least;
  }
  return first_row;
}

int64_t BlockChannels(const ProductPlan& product) {
  int64_t channels = 0;
  for (const ChannelBlock& block : product.blocks) channels = std::max(channels, block.channels);
  return channels;
}

}  // namespace gossamer
