// A convolution to be tested: what its numbers, floats or bytes, have no part in.
#ifndef GOSSAMER_TESTS_CONVOLUTION_CASE_H_
#define GOSSAMER_TESTS_CONVOLUTION_CASE_H_

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/convolution_shape.h"
#include "tests/draw.h"

namespace gossamer {

struct ConvolutionCase {
  ConvolutionShape shape;
  int64_t height = 1;
  int64_t width = 1;
  int64_t images = 1;
  double density = 0.3;
  bool bias = true;
  bool residual = false;
  bool in_place = false;
  int64_t threads = 1;
  int64_t workers = 1;
  int64_t block_bytes = 0;
  bool column_shift = true;

  // False if the shape fits no such image.
  bool DrawImages(Draw* draw_from) {
    Draw& draw = *draw_from;
    shape.groups = draw(0, 3) == 0 ? draw(2, 5) : 1;
    shape.input_channels = shape.groups * draw(1, 30);
    shape.output_channels = shape.groups * draw(1, 20);
    shape.kernel_height = draw(1, 5);
    shape.kernel_width = draw(0, 1) == 0 ? 3 : draw(1, 7);
    shape.stride_height = draw(1, 3);
    shape.stride_width = draw(1, 3);
    const int64_t farthest = draw(0, 3) == 0 ? 20 : 3;
    shape.dilation_height = draw(0, 2) == 0 ? draw(1, farthest) : 1;
    shape.dilation_width = draw(0, 2) == 0 ? draw(1, farthest) : 1;
    const int64_t reach_height = shape.dilation_height * (shape.kernel_height - 1) + 1;
    const int64_t reach_width = shape.dilation_width * (shape.kernel_width - 1) + 1;
    shape.pad_top = draw(0, reach_height);
    shape.pad_bottom = draw(0, reach_height);
    shape.pad_left = draw(0, reach_width);
    shape.pad_right = draw(0, reach_width);
    height = draw(1, 24);
    width = draw(0, 4) == 0 ? draw(100, 260) : draw(1, 40);
    if (!CheckImage(shape, height, width).ok()) return false;
    images = draw(1, 2);
    density = std::vector<double>{0.0, 0.02, 0.1, 0.3, 1.0}[static_cast<size_t>(draw(0, 4))];
    bias = draw(0, 3) != 0;
    residual = draw(0, 2) == 0;
    in_place = residual && draw(0, 1) == 0;
    return true;
  }

  void DrawParts(Draw* draw) {
    threads = (*draw)(1, 3);
    workers = (*draw)(1, 3);
    block_bytes = (*draw)(0, 1) == 0 ? 0 : (*draw)(1, 20) << 10;
    column_shift = (*draw)(0, 3) != 0;
  }

  // `numbers`: what belongs to them.
  std::string DescribeWith(const std::string& numbers) const {
    std::ostringstream text;
    text << images << " x " << shape.input_channels << " x " << height << " x " << width << " -> "
         << shape.output_channels << ", groups " << shape.groups << ", kernel " << shape.kernel_height << "x"
         << shape.kernel_width << ", stride " << shape.stride_height << "x" << shape.stride_width << ", dilation "
         << shape.dilation_height << "x" << shape.dilation_width << ", pads " << shape.pad_top << " " << shape.pad_left
         << " " << shape.pad_bottom << " " << shape.pad_right << ", density " << density << ", residual " << residual
         << in_place << ", " << numbers << ", threads " << threads << ", workers " << workers << ", block "
         << block_bytes << ", shift " << column_shift;
    return text.str();
  }
};

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_CONVOLUTION_CASE_H_
