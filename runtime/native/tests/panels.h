// Panels in guarded memory.
#ifndef GOSSAMER_TESTS_PANELS_H_
#define GOSSAMER_TESTS_PANELS_H_

#include <cstdint>
#include <vector>

#include "kernels/convolution_plan.h"
#include "kernels/panel.h"
#include "tests/guarded.h"

namespace gossamer {

inline constexpr float kUntouched = 12345.0f;

class AlignedFloats : public Guarded<float> {
 public:
  explicit AlignedFloats(int64_t count) : Guarded(count, kUntouched) {}
};

inline ConvolutionShape Square(int64_t inputs, int64_t outputs, int64_t kernel, int64_t stride) {
  ConvolutionShape shape;
  shape.input_channels = inputs;
  shape.output_channels = outputs;
  shape.kernel_height = shape.kernel_width = kernel;
  shape.stride_height = shape.stride_width = stride;
  shape.pad_top = shape.pad_left = shape.pad_bottom = shape.pad_right = kernel / 2;
  return shape;
}

// Panels of a batch, from [images][channels][height][width]. The storage is exactly what ONNX Runtime will allocate.
inline AlignedFloats Panels(const PanelLayout& layout, int64_t channels, int64_t images,
                            const std::vector<float>& planar) {
  AlignedFloats panels(layout.image_stride(channels) * images);
  const int64_t planar_stride = channels * layout.height * layout.width;
  for (int64_t image = 0; image < images; ++image) {
    PanelFromPlanar(layout, channels, planar.data() + image * planar_stride, {0, layout.tiles()}, {0, channels},
                    panels.data() + image * layout.image_stride(channels));
  }
  return panels;
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_PANELS_H_
