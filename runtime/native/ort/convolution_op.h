// What ops that are convolutions on panels have in common.
#ifndef GOSSAMER_ORT_CONVOLUTION_OP_H_
#define GOSSAMER_ORT_CONVOLUTION_OP_H_

#include <string>
#include <vector>

#include "format/sparse_weight.h"
#include "kernels/limits.h"
#include "ort/attributes.h"
#include "ort/inferred_panel.h"
#include "ort/panel_shape.h"

namespace gossamer {

// The convolution that a node's attributes and its weight say together. The weight says its own shape. Its channels are
// counted by the panel that it meets; the other numbers the attributes say as well.
template <class Value>
ConvolutionShape RequireConvolution(const std::string& op, const ConvolutionAttributes& attributes,
                                    const SparseMatrix<Value>& weight) {
  ConvolutionShape shape = attributes.shape;
  if (shape.kernel_height < 1 || shape.kernel_height > kMaximumExtent || shape.kernel_width < 1 ||
      shape.kernel_width > kMaximumExtent || shape.groups < 1 || shape.groups > kMaximumExtent) {
    Fail(op + ": kernel_shape and group must be within 1 and 2^24");
  }
  const std::vector<int64_t>& given = weight.shape;
  if (given.size() != attributes.axes + 2 || given[0] != shape.output_channels || given.back() != shape.kernel_width ||
      (attributes.axes == 2 && given[2] != shape.kernel_height)) {
    Fail(op + ": the weight's shape is not [output_channels, channels / group, kernel_shape]");
  }
  shape.input_channels = weight.columns / shape.taps() * shape.groups;
  Require(CheckConvolution(shape, weight));
  return shape;
}

inline void RequireAxes(const std::string& op, size_t expected, size_t got) {
  if (got == expected) return;
  Fail(op + ": kernel_shape is for inputs of " + std::to_string(expected) + " dimensions, the input has " +
       std::to_string(got));
}

// Infers a convolution's output from the attributes alone, for the weight's bytes are not read here; the kernel checks it.
template <class Panels>
void InferConvolution(const std::string& op, Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const ConvolutionAttributes attributes = ReadConvolution(static_cast<const Ort::ShapeInferContext&>(context));
  ConvolutionShape shape = attributes.shape;
  if (!KnowsImage(input) || shape.output_channels < 1) return;
  if (input.size() != attributes.axes + 2) Fail(op + ": kernel_shape has not one number for each axis of the input");
  shape.input_channels = shape.groups;
  Require(CheckNumbers(shape));
  SetPanelShape<Panels>(context, input, shape);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_CONVOLUTION_OP_H_
