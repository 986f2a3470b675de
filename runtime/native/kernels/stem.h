// The dense first convolution of a network, straight from an image into panels: bias, activation and the max pooling
// that follows it in residual networks on the way, so that the large image between them is never written.
//
// Vectors run over output channels and pixels are broadcast, for an image of few channels leaves nothing else to
// vectorise over that would not have to be shuffled. Four output rows are computed together, by Toom and Cook's method
// along the columns of the image where it takes fewer products: 4 rows under a kernel of 4 rows need 7 products instead
// of 16 (Winograd 1980). With stride 2 odd and even rows are two such kernels, so a 7 x 7 kernel takes half the
// multiply-adds. The error stays below 2.5 times that of direct summation. Such a sum spreads a pixel that is infinite or
// NaN over all four rows: strips with one are computed directly, and so are all where a weight is none to calculate with.
#ifndef GOSSAMER_KERNELS_STEM_H_
#define GOSSAMER_KERNELS_STEM_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "format/status.h"
#include "kernels/convolution_plan.h"
#include "kernels/epilogue.h"
#include "kernels/panel.h"

namespace gossamer {

// What one call of the innermost kernel computes on a processor.
struct StemTraits {
  int64_t channels;  // output channels: two registers
  int64_t pixels;
};
StemTraits CurrentStemTraits();

// Pixels, weights and biases below it need no care (StemPlan::ordinary).
inline constexpr float kOrdinaryStemValue = 4294967296.0f;

struct StemOptions {
  StemTraits traits;           // CurrentStemTraits()
  bool max_pool = false;       // 3 x 3, stride 2, padding 1, after the activation
  bool may_transform = true;   // false: every product by itself
  int64_t threads = 1;         // that the layers behind it run on
};

// Image rows that enter a product together, for output row y:  shape.stride_height * (y + i) + first_row  of `channel`,
// where i counts output rows or, with the transform, the rows that four of them see.
struct StemRow {
  int64_t channel;
  int64_t first_row;
};

struct StemPlan {
  ConvolutionShape shape;
  Epilogue epilogue;
  int64_t height = 0, width = 0;          // of the image
  int64_t rows = 0, columns = 0;          // of the convolution's output
  bool max_pool = false;
  PanelLayout output;

  StemTraits traits = {};
  bool transformed = false;
  int64_t points = 0;         // products that four rows of output are made from
  int64_t blocks = 0;         // of traits.channels output channels
  int64_t padded_columns = 0; // a multiple of traits.pixels
  int64_t row_floats = 0;     // of a padded input row
  std::vector<StemRow> inputs;
  std::vector<float> weights;  // [block][point, if transformed][input][kernel column][traits.channels]
  std::vector<float> bias;     // blocks * traits.channels
  bool ordinary = false;       // every weight and bias is below 2^32 in magnitude: no NaN from pixels that are, too
  std::shared_ptr<const StemPlan> direct;  // without the transform, for strips with other pixels; null: this one is

  int64_t channel_pitch() const { return blocks * traits.channels; }
  int64_t strips() const { return (rows + 3) / 4; }
  int64_t scratch_floats() const;
};

// `weight` is [output channels, input channels, kernel height, kernel width]; `bias` may be null. Needs CheckNumbers and
// CheckImage to have passed. Groups, dilations and column strides above 2 are refused.
Status MakeStemPlan(const ConvolutionShape& shape, const float* weight, const float* bias, const Epilogue& epilogue,
                    int64_t height, int64_t width, const StemOptions& options, StemPlan* plan);

// Computes strips [first, last) of 4 convolution rows of one image, [channels][height][width], into its panel. A pooled
// row belongs to the strip of the last row that it looks at; one that also looks at a row before strip `first` is left to
// RunStemSeam. `scratch`: plan.scratch_floats(), aligned to 64 bytes.
void RunStem(const StemPlan& plan, const float* image, float* panel, int64_t first, int64_t last, float* scratch);

// The pooled row that looks at strips `strip` - 1 and `strip` of one image, after the two calls of RunStem that ended and
// began there; their scratch. Only for plans with max_pool.
void RunStemSeam(const StemPlan& plan, int64_t strip, float* before, float* after, float* panel);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_STEM_H_
