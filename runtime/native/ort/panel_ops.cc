#include "ort/panel_ops.h"

#include "kernels/limits.h"
#include "kernels/panel.h"
#include "ort/attributes.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {
namespace {

// Calls run(image, tiles, channels) for pieces of images, dealt to the threads as a convolution's are.
template <class Run>
void ForEachPiece(const Ort::KernelContext& context, const PanelLayout& layout, int64_t images, int64_t channels,
                  int64_t threads, const Run& run) {
  const bool by_channels = layout.dealing == Dealing::kChannels;
  const int64_t pieces = by_channels ? threads : layout.tiles();
  ParallelStealing(context, images * pieces, threads, 1, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t image = item / pieces, piece = item % pieces;
      if (by_channels) {
        run(image, Range{0, layout.tiles()}, ShareOf(channels, pieces, piece));
      } else {
        run(image, Range{piece, piece + 1}, Range{0, channels});
      }
    }
  });
}

}  // namespace

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

void ToPanelOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  if (!KnowsImage(input) || !input[1].IsInt() || input[1].AsInt() < 1) return;
  RequireImage(input[1].AsInt(), HeightOf(input), WidthOf(input));
  const PanelLayout layout = MakePanelLayout(HeightOf(input), WidthOf(input));
  InferredShape output = input;
  output[1] = layout.storage_channels(input[1].AsInt());
  SetOutputShape(context, output);
}

FromPanelKernel::FromPanelKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), channels_(IntegerOr(info, "channels", int64_t{0})) {
  Require(channels_ >= 1 && channels_ <= kMaximumExtent, "FromPanel: the attribute channels must be within 1 and 2^24");
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (KnowsImage(known)) RequireImage(channels_, ImageOf(known).height, ImageOf(known).width);
  RequireKnownPanel("FromPanel", known, channels_);
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

void FromPanelOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t channels = IntegerOr(static_cast<const Ort::ShapeInferContext&>(context), "channels", int64_t{0});
  if ((input.size() != 3 && input.size() != 4) || channels < 1) return;
  Require(channels <= kMaximumExtent, "FromPanel: the attribute channels must be within 1 and 2^24");
  if (KnowsImage(input)) RequireImage(channels, HeightOf(input), WidthOf(input));
  InferredShape output = input;
  output[1] = channels;
  SetOutputShape(context, output);
}

}  // namespace gossamer
