#include "ort/stem_conv.h"

#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {
namespace {

template <class Source>
ConvolutionShape ReadImageConvolution(const Source& source) {
  const ConvolutionAttributes attributes = ReadConvolution(source);
  Require(attributes.axes == 2, "StemConv: kernel_shape needs two numbers");
  return attributes.shape;
}

// The weight's numbers; its shape must be the one that the attributes say, and gives the input channels.
std::vector<float> ReadDenseWeight(const Ort::ConstKernelInfo& info, size_t index, ConvolutionShape* shape) {
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  Require(constant != 0 && static_cast<const OrtValue*>(value) != nullptr, "StemConv: the weight must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  Require(type.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "StemConv: the weight must be of type float");
  const std::vector<int64_t> extents = type.GetShape();
  Require(extents.size() == 4 && extents[0] == shape->output_channels && extents[2] == shape->kernel_height &&
              extents[3] == shape->kernel_width,
          "StemConv: the weight's shape is not [output_channels, channels, kernel_shape]");
  shape->input_channels = extents[1];
  const float* data = value.GetTensorData<float>();
  return std::vector<float>(data, data + type.GetElementCount());
}

}  // namespace

StemConvKernel::StemConvKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), shape_(ReadImageConvolution(info)), epilogue_(ReadEpilogue(info)) {
  RequireExplicitPadding(info);
  const int64_t max_pool = IntegerOr(info, "max_pool", int64_t{0});
  Require(max_pool == 0 || max_pool == 1, "StemConv: max_pool must be 0 or 1");
  max_pool_ = max_pool == 1;
  weight_ = ReadDenseWeight(info, 1, &shape_);
  Require(CheckNumbers(shape_));
  bias_ = ReadBias<float>(info, 2, shape_.output_channels);
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (known.size() == 4 && KnowsImage(known)) Plan(known[2], known[3]);
}

std::shared_ptr<const StemPlan> StemConvKernel::Plan(int64_t height, int64_t width) {
  return plans_.Get({height, width}, [&] {
    Require(CheckImage(shape_, height, width));
    StemOptions options;
    options.traits = CurrentStemTraits();
    options.max_pool = max_pool_;
    options.threads = threads_;
    auto plan = std::make_shared<StemPlan>();
    Require(MakeStemPlan(shape_, weight_.data(), bias_.data(), epilogue_, height, width, options, plan.get()));
    return plan;
  });
}

void StemConvKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input && input->shape.size() == 4, "StemConv: expected an input of four dimensions");
  if (input->shape[1] != shape_.input_channels) {
    Fail("StemConv: the weight takes " + std::to_string(shape_.input_channels) + " channels, the input has " +
         std::to_string(input->shape[1]));
  }
  const int64_t images = input->shape[0];
  RequireImage(shape_.input_channels, input->shape[2], input->shape[3]);
  const std::shared_ptr<const StemPlan> plan = Plan(input->shape[2], input->shape[3]);
  const int64_t channels = shape_.output_channels;
  float* output = output_.Get(context, PanelShape(4, images, plan->output, channels));
  const int64_t image_floats = shape_.input_channels * plan->height * plan->width;
  const int64_t strips = plan->strips();
  const Scratch& scratch = Scratch::OfThisThread(plan->scratch_floats(), threads_);
  ParallelRanges(context, images * strips, threads_, [&](int64_t first, int64_t last, int64_t part) {
    while (first < last) {
      const int64_t image = first / strips;
      const int64_t end = std::min(last, (image + 1) * strips);
      RunStem(*plan, input->data + image * image_floats, output + image * plan->output.image_stride(channels),
              first - image * strips, end - image * strips, scratch.of(part));
      first = end;
    }
  });
  if (!max_pool_) return;
  // Between the ranges that ParallelRanges made.
  const int64_t items = images * strips, parts = std::min(items, threads_);
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t first = ShareOf(items, parts, part).first;
    const int64_t image = first / strips, strip = first % strips;
    if (strip == 0) continue;
    RunStemSeam(*plan, strip, scratch.of(part - 1), scratch.of(part),
                output + image * plan->output.image_stride(channels));
  }
}

void StemConvOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const Ort::ShapeInferContext& attributes = context;
  ConvolutionShape shape = ReadImageConvolution(attributes);
  if (input.size() != 4 || !KnowsImage(input) || shape.output_channels < 1) return;
  shape.input_channels = shape.groups;  // the kernel checks it
  Require(CheckNumbers(shape));
  Require(CheckImage(shape, input[2].AsInt(), input[3].AsInt()));
  const bool max_pool = IntegerOr(attributes, "max_pool", int64_t{0}) == 1;
  const auto pooled = [&](int64_t extent) { return max_pool ? (extent - 1) / 2 + 1 : extent; };
  const int64_t height = pooled(shape.output_height(input[2].AsInt()));
  const int64_t width = pooled(shape.output_width(input[3].AsInt()));
  RequireImage(shape.output_channels, height, width);
  InferredShape output = input;
  output[1] = MakePanelLayout(height, width).storage_channels(shape.output_channels);
  output[2] = height;
  output[3] = width;
  SetOutputShape(context, output);
}

}  // namespace gossamer
