#include "ort/quantised_panel_ops.h"

#include <type_traits>

#include "kernels/requantisation.h"
#include "ort/lanes.h"
#include "ort/panel_edges.h"
#include "ort/panel_shape.h"
#include "ort/pieces.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {
namespace {

Quantisation ReadQuantisation(const Ort::ConstKernelInfo& info) {
  Quantisation q;
  q.scale = FloatOr(info, "scale", 1.0f);
  Require(IsScale(q.scale), "the attribute scale must be within 2^-126 and 2^64");
  q.zero_point = ReadByte(info, "zero_point", 0);
  return q;
}

constexpr uint8_t kSignBit = 128;

}  // namespace

QuantisedToPanelKernel::QuantisedToPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), quantisation_(ReadQuantisation(info)) {
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (!KnowsImage(known)) return;
  const ImageShape image = ImageOf(known);
  RequireImage(image.channels < 0 ? 1 : image.channels, image.height, image.width);
}

void QuantisedToPanelKernel::Compute(Ort::KernelContext& context) {
  const Ort::ConstValue input = context.GetInput(0);
  const auto info = input.GetTensorTypeAndShapeInfo();
  const std::vector<int64_t> shape = info.GetShape();
  Require(IsImage(shape), "QuantisedToPanel: expected an input of three or four dimensions");
  const auto [images, channels, height, width] = ImageOf(shape);
  RequireImage(channels, height, width);
  const PanelLayout layout = MakePanelLayout(height, width, threads_);
  uint8_t* const output = output_.Get<uint8_t>(context, PanelShape<BytePanels>(shape.size(), images, layout, channels));
  const int64_t planar = channels * height * width;
  const int64_t stride = kQuad * QuantisedStride(layout, channels);
  const auto convert = [&, channels = channels](const auto* data, const auto&... how) {
    ForEachPiece(context, layout, images, QuadsOf(channels), threads_, [&](int64_t image, Range tiles, Range some) {
      QuantisedFromPlanar(layout, channels, data + image * planar, how..., tiles, some,
                          PanelBytesOf(output) + image * stride);
    });
  };
  switch (info.GetElementType()) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return convert(input.GetTensorData<float>(), quantisation_);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return convert(input.GetTensorData<uint8_t>(), uint8_t{0}, quantisation_.zero_point);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return convert(reinterpret_cast<const uint8_t*>(input.GetTensorData<int8_t>()), kSignBit,
                     quantisation_.zero_point);
    default:
      Fail("QuantisedToPanel: expected an input of type float, uint8 or int8");
  }
}

void QuantisedToPanelOp::Infer(Ort::ShapeInferContext& context) { InferToPanel<BytePanels>(context); }

template <class Element>
FromBytePanelKernel<Element>::FromBytePanelKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), channels_(RequireChannels("QuantisedFromPanel", info)), quantisation_(ReadQuantisation(info)) {
  RequireKnownPanel<BytePanels>("QuantisedFromPanel", KnownShape(info, 0), channels_);
}

template <class Element>
void FromBytePanelKernel<Element>::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedFromPanel: no input");
  const ImageShape image_shape = RequirePanel<BytePanels>("QuantisedFromPanel", input->shape, channels_);
  const PanelLayout layout = MakePanelLayout(image_shape.height, image_shape.width, threads_);
  std::vector<int64_t> output_shape = input->shape;
  output_shape[1] = channels_;
  Element* const output = output_.Get<Element>(context, output_shape);
  const int64_t planar = channels_ * layout.height * layout.width;
  const int64_t stride = kQuad * QuantisedStride(layout, channels_);
  ForEachPiece(context, layout, image_shape.images, QuadsOf(channels_), threads_,
               [&](int64_t image, Range tiles, Range some) {
                 const PanelByte* const panel = PanelBytesOf(input->data) + image * stride;
                 if constexpr (std::is_same_v<Element, float>) {
                   PlanarFromQuantised(layout, channels_, panel, quantisation_, tiles, some, output + image * planar);
                 } else {
                   PlanarFromQuantised(layout, channels_, panel, tiles, some, output + image * planar);
                 }
               });
}

template class FromBytePanelKernel<uint8_t>;
template class FromBytePanelKernel<float>;

void QuantisedFromPanelOp::Infer(Ort::ShapeInferContext& context) { InferFromPanel("QuantisedFromPanel", context); }
void DequantisedFromPanelOp::Infer(Ort::ShapeInferContext& context) { InferFromPanel("DequantisedFromPanel", context); }

}  // namespace gossamer
