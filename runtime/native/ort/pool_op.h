// What ops that pool panels have in common.
#ifndef GOSSAMER_ORT_POOL_OP_H_
#define GOSSAMER_ORT_POOL_OP_H_

#include <algorithm>
#include <string>

#include "ort/attributes.h"
#include "ort/inferred_panel.h"
#include "ort/output.h"
#include "ort/panel_shape.h"

namespace gossamer {

template <class Source>
ConvolutionAttributes ReadPool(const std::string& op, const Source& source) {
  ConvolutionAttributes attributes = ReadConvolution(source);
  attributes.shape.input_channels = attributes.shape.output_channels = IntegerOr(source, "channels", int64_t{0});
  attributes.shape.groups = 1;
  const ConvolutionShape& shape = attributes.shape;
  Require(CheckNumbers(shape));
  if (std::max(shape.pad_top, shape.pad_bottom) >= shape.kernel_height ||
      std::max(shape.pad_left, shape.pad_right) >= shape.kernel_width) {
    Fail(op + ": pads must be smaller than kernel_shape, for there would be nothing to pool");
  }
  return attributes;
}

// Whether the shape that a session's creation knows is one of a panel that the op can pool.
template <class Panels>
void RequireKnownPool(const std::string& op, const Ort::ConstKernelInfo& info, const ConvolutionShape& shape) {
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (KnowsImage(known)) Require(CheckImage(shape, ImageOf(known).height, ImageOf(known).width));
  RequireKnownPanel<Panels>(op.c_str(), known, shape.input_channels);
}

// The image of a tensor that is pooled.
template <class Panels>
ImageShape RequirePool(const std::string& op, const std::vector<int64_t>& input, size_t rank,
                       const ConvolutionShape& shape) {
  if (input.size() != rank) Fail(op + ": kernel_shape has not one number for each axis of the input");
  const ImageShape image = RequirePanel<Panels>(op.c_str(), input, shape.input_channels);
  Require(CheckImage(shape, image.height, image.width));
  return image;
}

// What kernels that pool know of their op when a session is created.
template <class Panels>
class PoolKernel {
 protected:
  PoolKernel(const std::string& op, const Ort::ConstKernelInfo& info, int64_t threads) : threads_(threads) {
    RequireExplicitPadding(info);
    const ConvolutionAttributes attributes = ReadPool(op, info);
    shape_ = attributes.shape;
    rank_ = attributes.axes + 2;
    RequireKnownPool<Panels>(op, info, shape_);
  }

  int64_t threads_;
  size_t rank_ = 4;  // of input and output
  ConvolutionShape shape_;
  OutputMemory output_;
};

template <class Panels>
void InferPool(const std::string& op, Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const ConvolutionAttributes attributes = ReadPool(op, static_cast<const Ort::ShapeInferContext&>(context));
  if (!KnowsImage(input)) return;
  if (input.size() != attributes.axes + 2) Fail(op + ": kernel_shape has not one number for each axis of the input");
  const ConvolutionShape& shape = attributes.shape;
  SetPanelShape<Panels>(context, input, shape);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_POOL_OP_H_
