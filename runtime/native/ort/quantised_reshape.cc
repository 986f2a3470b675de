#include "ort/quantised_reshape.h"

#include <algorithm>

#include "ort/lanes.h"
#include "ort/panel_edges.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"
#include "ort/pieces.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {
namespace {

// Channels of all inputs; fails where one is none, or all together are too many.
template <class Source>
std::vector<int64_t> ReadChannels(const Source& source) {
  const std::vector<int64_t> channels = IntegersOr(source, "channels", {});
  Require(!channels.empty(), "QuantisedConcat: the attribute channels needs a number for each input");
  int64_t all = 0;
  for (const int64_t some : channels) {
    Require(some >= 1 && some <= kMaximumExtent, "QuantisedConcat: channels must be within 1 and 2^24");
    all += some;
    Require(all <= kMaximumExtent, "QuantisedConcat: more than 2^24 channels");
  }
  return channels;
}

int64_t Sum(const std::vector<int64_t>& channels) {
  int64_t all = 0;
  for (const int64_t some : channels) all += some;
  return all;
}

std::vector<float> ReadScales(const Ort::ConstKernelInfo& info, size_t count) {
  const std::vector<float> scales =
      Given(info, "input_scales", std::vector<float>(), [&] { return info.GetAttributes<float>("input_scales"); });
  Require(scales.size() == count, "QuantisedConcat: input_scales needs a number for each input");
  for (const float scale : scales) Require(IsScale(scale), "QuantisedConcat: a scale is not within 2^-126 and 2^64");
  return scales;
}

std::vector<int64_t> ReadZeroPoints(const Ort::ConstKernelInfo& info, size_t count) {
  const std::vector<int64_t> zero_points = IntegersOr(info, "input_zero_points", std::vector<int64_t>(count, 0));
  Require(zero_points.size() == count, "QuantisedConcat: input_zero_points needs a number for each input");
  for (const int64_t zero_point : zero_points) {
    Require(zero_point >= 0 && zero_point <= 255, "QuantisedConcat: a zero point is not within 0 and 255");
  }
  return zero_points;
}

template <class Source>
int64_t ReadFactor(const Source& source, const char* name) {
  const int64_t factor = IntegerOr(source, name, int64_t{1});
  if (factor < 1 || factor > kMaximumExtent) {
    Fail(std::string("QuantisedResize: the attribute ") + name + " must be within 1 and 2^24");
  }
  return factor;
}

}  // namespace

QuantisedConcatKernel::QuantisedConcatKernel(const Ort::ConstKernelInfo& info, int64_t threads) : threads_(threads) {
  const std::vector<int64_t> channels = ReadChannels(info);
  const std::vector<float> scales = ReadScales(info, channels.size());
  const std::vector<int64_t> zero_points = ReadZeroPoints(info, channels.size());
  const Quantisation output{RequireScale(info, "output_scale"), ReadByte(info, "output_zero_point", 0)};
  for (size_t i = 0; i < channels.size(); ++i) {
    ConcatInput input{channels[i], channels_, {}};
    const Quantisation from{scales[i], static_cast<int32_t>(zero_points[i])};
    if (from.scale != output.scale || from.zero_point != output.zero_point) {
      input.table = PanelTable(RescalingTable(from, output));
    }
    channels_ += channels[i];
    inputs_.push_back(std::move(input));
  }
}

void QuantisedConcatKernel::Compute(Ort::KernelContext& context) {
  Require(context.GetInputCount() == inputs_.size(), "QuantisedConcat: channels needs a number for each input");
  std::vector<TensorInput<uint8_t>> tensors;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const std::optional<TensorInput<uint8_t>> tensor = GetTensorInput<uint8_t>(context, i);
    Require(tensor.has_value(), "QuantisedConcat: an input is missing");
    RequirePanel<BytePanels>("QuantisedConcat", tensor->shape, inputs_[i].channels);
    tensors.push_back(*tensor);
    const ImageShape first = ImageOf(tensors[0].shape), this_one = ImageOf(tensor->shape);
    Require(tensors[0].shape.size() == tensor->shape.size() && first.images == this_one.images &&
                first.height == this_one.height && first.width == this_one.width,
            "QuantisedConcat: the inputs are of different sizes");
  }
  const ImageShape image = ImageOf(tensors[0].shape);
  RequireImage(channels_, image.height, image.width);
  const PanelLayout layout = MakePanelLayout(image.height, image.width, threads_);
  int32_t* const output = LanesOf(
      output_.Get<uint8_t>(context, PanelShape<BytePanels>(tensors[0].shape.size(), image.images, layout, channels_)));
  const int64_t stride = QuantisedStride(layout, channels_);
  ParallelStealing(context, image.images * layout.tiles(), threads_, 1, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t number = item / layout.tiles(), tile = item % layout.tiles();
      for (size_t i = 0; i < inputs_.size(); ++i) {
        CopyChannels(layout, inputs_[i], channels_,
                     LanesOf(tensors[i].data) + number * QuantisedStride(layout, inputs_[i].channels), {tile, tile + 1},
                     output + number * stride);
      }
    }
  });
}

void QuantisedConcatOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t channels = Sum(ReadChannels(static_cast<const Ort::ShapeInferContext&>(context)));
  if (!KnowsImage(input)) return;
  RequireImage(channels, HeightOf(input), WidthOf(input));
  InferredShape output = input;
  output[1] = QuantisedStorage(MakePanelLayout(HeightOf(input), WidthOf(input)), channels);
  SetOutputShape(context, output);
}

QuantisedResizeKernel::QuantisedResizeKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads),
      channels_(RequireChannels("QuantisedResize", info)),
      rows_(ReadFactor(info, "rows")),
      columns_(ReadFactor(info, "columns")) {
  RequireKnownPanel<BytePanels>("QuantisedResize", KnownShape(info, 0), channels_);
}

void QuantisedResizeKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedResize: no input");
  const ImageShape image = RequirePanel<BytePanels>("QuantisedResize", input->shape, channels_);
  Require(rows_ == 1 || input->shape.size() == 4, "QuantisedResize: a sequence has no rows to repeat");
  RequireImage(channels_, image.height * rows_, image.width * columns_);
  const PanelLayout from = MakePanelLayout(image.height, image.width, threads_);
  const PanelLayout to = MakePanelLayout(image.height * rows_, image.width * columns_, threads_);
  int32_t* const output = LanesOf(
      output_.Get<uint8_t>(context, PanelShape<BytePanels>(input->shape.size(), image.images, to, channels_)));
  const int64_t quads = QuadsOf(channels_);
  ParallelStealing(context, image.images * quads, threads_, 1, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t number = item / quads, quad = item % quads;
      RepeatPixels(from, to, rows_, columns_, quads, LanesOf(input->data) + number * QuantisedStride(from, channels_),
                   {quad, quad + 1}, output + number * QuantisedStride(to, channels_));
    }
  });
}

void QuantisedResizeOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const Ort::ShapeInferContext& source = context;
  const int64_t channels = IntegerOr(source, "channels", int64_t{0});
  const int64_t rows = ReadFactor(source, "rows"), columns = ReadFactor(source, "columns");
  if (!KnowsImage(input) || channels < 1) return;
  Require(rows == 1 || input.size() == 4, "QuantisedResize: a sequence has no rows to repeat");
  RequireImage(channels, HeightOf(input), WidthOf(input));
  const int64_t height = HeightOf(input) * rows, width = WidthOf(input) * columns;
  RequireImage(channels, height, width);
  InferredShape output = input;
  output[1] = QuantisedStorage(MakePanelLayout(height, width), channels);
  if (output.size() == 4) output[2] = height;
  output[output.size() - 1] = width;
  SetOutputShape(context, output);
}

}  // namespace gossamer
