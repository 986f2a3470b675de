#include "ort/quantised_matmul.h"

#include <functional>
#include <numeric>

#include "kernels/quantised_convolution.h"
#include "ort/constants.h"
#include "ort/lanes.h"
#include "ort/matmul_op.h"
#include "ort/parallel.h"
#include "ort/requantisation_attributes.h"

namespace gossamer {
namespace {

QuantisedOptions OptionsFor(int64_t threads) {
  QuantisedOptions options;
  options.traits = CurrentByteTraits();
  options.threads = threads;
  return options;
}

// Deals the tokens of an input to the threads.
template <class In, class Residual, class Out, class Run>
void Multiply(Ort::KernelContext& context, const QuantisedMatMulPlan& plan, const std::vector<int64_t>& shape,
              int64_t threads, const In* input, const Residual& residual, Out* output, const Run& run) {
  const int64_t tokens = TokensOf(shape);
  if (tokens == 0) return;
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_lanes(), threads);
  ParallelStealing(context, plan.items(tokens), threads, plan.together(),
                   [&](int64_t first, int64_t last, int64_t part) {
                     run(plan, tokens, input, residual, output, first, last, LanesOf(scratch.of(part)));
                   });
}

int64_t CountOf(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

QuantisedMatMulKernel::QuantisedMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), weight_(ReadWeight<int8_t>(info, 1, threads)) {
  RequireMatrix("QuantisedMatMul", info, weight_);
  const Requantisation to = ReadRequantisation(info, 2, 5, weight_.rows);
  residual_scaled_ = to.residual_scale != 0.0f;
  const std::vector<int32_t> bias = ReadBias<int32_t>(info, 3, weight_.rows);
  Require(CheckSums(weight_, bias.data()));
  Require(MakeQuantisedMatMulPlan(weight_, bias.data(), ReadByte(info, "input_zero_point", 0), to, OptionsFor(threads),
                                  &plan_));
}

void QuantisedMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  Require(input.has_value(), "QuantisedMatMul: no input");
  const std::vector<int64_t> output_shape = MatMulShape("QuantisedMatMul", input->shape, weight_);
  const std::optional<TensorInput<uint8_t>> residual = GetTensorInput<uint8_t>(context, 4);
  const bool shared = residual && residual->shape == std::vector<int64_t>{weight_.rows};
  Require(!residual || shared || residual->shape == output_shape,
          "QuantisedMatMul: the residual has neither the output's shape nor that of one token");
  Require(!residual || residual_scaled_, "QuantisedMatMul: a residual without residual_scale");
  const ByteResidual other{residual ? residual->data : nullptr, shared};
  Multiply(context, plan_, input->shape, threads_, input->data, other,
           output_.Get<uint8_t>(context, output_shape), RunQuantisedMatMul);
}

void QuantisedMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

FloatMatMulKernel::FloatMatMulKernel(const char* name, const Ort::ConstKernelInfo& info, int64_t threads, size_t bias)
    : name_(name), threads_(threads), weight_(ReadWeight<int8_t>(info, 1, threads)) {
  RequireMatrix(name, info, weight_);
  Requantisation scales;
  scales.scale = ReadConstant<float>(info, 2, weight_.rows, "scales");
  Require(CheckRequantisation(scales, weight_.rows));
  const std::vector<float> numbers = ReadBias<float>(info, bias, weight_.rows);
  Require(CheckSums(weight_, nullptr));
  Require(MakeDynamicMatMulPlan(weight_, scales.scale.data(), numbers.data(), ReadEpilogue(info), OptionsFor(threads),
                                &plan_));
}

template <class Element, class Run>
void FloatMatMulKernel::Multiply(Ort::KernelContext& context, const TensorInput<Element>& input, size_t residual,
                                 const Run& run) {
  const std::vector<int64_t> output_shape = MatMulShape(name_, input.shape, weight_);
  const std::optional<FloatInput> added = GetFloatInput(context, residual);
  if (added && added->shape != output_shape) Fail(std::string(name_) + ": the residual has not the output's shape");
  const float* const other = added ? added->data : nullptr;
  gossamer::Multiply(context, plan_, input.shape, threads_, input.data, other, output_.Get(context, output_shape), run);
}

DynamicMatMulKernel::DynamicMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : FloatMatMulKernel("DynamicMatMul", info, threads, 3) {}

void DynamicMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "DynamicMatMul: no input");
  Multiply(context, *input, 4, RunDynamicMatMul);
}

DequantisedMatMulKernel::DequantisedMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : FloatMatMulKernel("DequantisedMatMul", info, threads, 5) {}

void DequantisedMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<TensorInput<uint8_t>> input = GetTensorInput<uint8_t>(context, 0);
  const std::optional<FloatInput> scale = GetFloatInput(context, 3);
  const std::optional<TensorInput<uint8_t>> zero_point = GetTensorInput<uint8_t>(context, 4);
  Require(input && scale && zero_point, "DequantisedMatMul: no input, or no scale or zero point of it");
  Require(CountOf(scale->shape) == 1 && CountOf(zero_point->shape) == 1,
          "DequantisedMatMul: the input's scale and zero point are not one number each");
  const ByteScale to{*scale->data, *zero_point->data};
  Multiply(context, *input, 6,
           [&](const QuantisedMatMulPlan& plan, int64_t tokens, const uint8_t* bytes, const float* residual, float* output,
               int64_t first, int64_t last, int32_t* lanes) {
             RunDequantisedMatMul(plan, tokens, bytes, to, residual, output, first, last, lanes);
           });
}

void DequantisedMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

void DynamicMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

}  // namespace gossamer
