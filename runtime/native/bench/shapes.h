// Reads the layers of a network from a shape file (runtime/shapes).
#ifndef GOSSAMER_BENCH_SHAPES_H_
#define GOSSAMER_BENCH_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/convolution_plan.h"

namespace gossamer {

struct LayerShape {
  enum class Kind { kConvolution, kLinear } kind = Kind::kConvolution;
  ConvolutionShape convolution;  // a linear layer is a 1x1 convolution here
  int64_t height = 1;
  int64_t width = 1;  // tokens of a linear layer
  int64_t times = 1;  // in the network

  std::string name() const;
  double dense_multiply_adds() const;
};

// Empty with a message on standard error if the file cannot be read or a line is malformed.
std::vector<LayerShape> ReadShapes(const std::string& path);

}  // namespace gossamer

#endif  // GOSSAMER_BENCH_SHAPES_H_
