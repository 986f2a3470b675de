// The bytes of a fuzzer's input that choose what its weight is used for.
#ifndef GOSSAMER_FUZZ_RECIPE_H_
#define GOSSAMER_FUZZ_RECIPE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "format/sparse_weight.h"
#include "kernels/convolution_shape.h"
#include "kernels/epilogue.h"

namespace gossamer {

inline constexpr size_t kRecipeBytes = 16;
// More work than this is slow and shows nothing that less would not.
inline constexpr int64_t kMostFloats = int64_t{1} << 20;
inline constexpr size_t kMostProducts = size_t{1} << 22;

// The bytes that choose: two uses of one byte would tie choices to each other, so each is taken once.
class Recipe {
 public:
  explicit Recipe(const uint8_t* bytes) : next_(bytes), end_(bytes + kRecipeBytes) {}
  int64_t Take(int64_t choices) { return next_ == end_ ? 0 : *next_++ % choices; }

 private:
  const uint8_t* next_;
  const uint8_t* end_;
};

inline Epilogue TakeEpilogue(Recipe* recipe) {
  const Activation activation = static_cast<Activation>(recipe->Take(7));
  if (activation == Activation::kLeakyRelu) return Epilogue::LeakyRelu(0.2f);
  return activation == Activation::kClip ? Epilogue::Clip(0.0f, 6.0f) : Epilogue::Of(activation);
}

// A shape for the weight as a hostile model could declare it: mostly one that fits, sometimes any.
template <class Value>
ConvolutionShape TakeShape(const SparseMatrix<Value>& weight, Recipe* recipe) {
  ConvolutionShape shape;
  const bool two_axes = weight.shape.size() == 4;
  shape.kernel_height = two_axes ? weight.shape[2] : 1;
  shape.kernel_width = two_axes ? weight.shape[3] : weight.shape.size() == 3 ? weight.shape[2] : 1;
  shape.output_channels = weight.rows;
  const int64_t groups = recipe->Take(8);
  shape.groups = groups == 7 ? weight.rows : 1 + groups;  // depthwise, as often as each other number
  shape.input_channels = weight.columns / std::max<int64_t>(1, shape.taps()) * shape.groups;
  const int64_t strides = recipe->Take(256);
  shape.stride_height = strides % 16;
  shape.stride_width = strides / 16;
  const int64_t dilations = recipe->Take(64);
  shape.dilation_height = dilations % 8;
  shape.dilation_width = dilations / 8;
  const int64_t pads = recipe->Take(256);
  shape.pad_top = pads % 4;
  shape.pad_left = pads / 4 % 4;
  shape.pad_bottom = pads / 16 % 4;
  shape.pad_right = pads / 64;
  return shape;
}

}  // namespace gossamer

#endif  // GOSSAMER_FUZZ_RECIPE_H_
