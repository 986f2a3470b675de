#include "ort/panel_ops.h"

#include "kernels/panel.h"
#include "ort/panel_edges.h"
#include "ort/panel_shape.h"
#include "ort/pieces.h"

namespace gossamer {
ToPanelKernel::ToPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads) : threads_(threads) {
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (!KnowsImage(known)) return;
  const ImageShape image = ImageOf(known);
  RequireImage(image.channels < 0 ? 1 : image.channels, image.height, image.width);
}

void ToPanelKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input && IsImage(input->shape), "ToPanel: expected an input of three or four dimensions");
  const auto [images, channels, height, width] = ImageOf(input->shape);
  RequireImage(channels, height, width);
  const PanelLayout layout = MakePanelLayout(height, width, threads_);
  float* output = output_.Get(context, PanelShape(input->shape.size(), images, layout, channels));
  const int64_t planar = channels * layout.height * layout.width;
  const int64_t size = layout.image_stride(channels);
  ForEachPiece(context, layout, images, channels, threads_, [&, channels = channels](int64_t image, Range tiles, Range some) {
    PanelFromPlanar(layout, channels, input->data + image * planar, tiles, some, output + image * size);
  });
}

void ToPanelOp::Infer(Ort::ShapeInferContext& context) { InferToPanel<FloatPanels>(context); }

FromPanelKernel::FromPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), channels_(RequireChannels("FromPanel", info)) {
  RequireKnownPanel("FromPanel", KnownShape(info, 0), channels_);
}

void FromPanelKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "FromPanel: no input");
  const ImageShape image_shape = RequirePanel("FromPanel", input->shape, channels_);
  const PanelLayout layout = MakePanelLayout(image_shape.height, image_shape.width, threads_);
  const int64_t images = image_shape.images;
  std::vector<int64_t> output_shape = input->shape;
  output_shape[1] = channels_;
  float* output = output_.Get(context, output_shape);
  const int64_t planar = channels_ * layout.height * layout.width;
  const int64_t size = layout.image_stride(channels_);
  ForEachPiece(context, layout, images, channels_, threads_, [&](int64_t image, Range tiles, Range some) {
    PlanarFromPanel(layout, channels_, input->data + image * size, tiles, some, output + image * planar);
  });
}

void FromPanelOp::Infer(Ort::ShapeInferContext& context) { InferFromPanel("FromPanel", context); }

}  // namespace gossamer
