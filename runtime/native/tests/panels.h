// Panels in guarded memory.
#ifndef GOSSAMER_TESTS_PANELS_H_
#define GOSSAMER_TESTS_PANELS_H_

#include <cstdint>
#include <vector>

#include "kernels/convolution_plan.h"
#include "kernels/panel.h"

namespace gossamer {

inline constexpr float kUntouched = 12345.0f;

// Memory aligned as the kernels like it, with a guard behind.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count) : storage_(static_cast<size_t>(count) + 16 + kGuard, kUntouched) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(storage_.data());
    skip_ = (64 - address % 64) % 64 / sizeof(float);
    count_ = static_cast<size_t>(count);
  }
  float* data() { return storage_.data() + skip_; }
  const float* data() const { return storage_.data() + skip_; }
  bool guard_is_untouched() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (data()[count_ + i] != kUntouched) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  std::vector<float> storage_;
  size_t skip_ = 0;
  size_t count_ = 0;
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
