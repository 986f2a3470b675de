#include "ort/quantised_matmul.h"

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
template <class Element, class Run>
void Multiply(Ort::KernelContext& context, const QuantisedMatMulPlan& plan, const std::vector<int64_t>& shape,
              int64_t threads, const Element* input, const Element* residual, Element* output, const Run& run) {
  const int64_t tokens = TokensOf(shape);
  if (tokens == 0) return;
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_lanes(), threads);
  ParallelStealing(context, plan.items(tokens), threads, plan.together(),
                   [&](int64_t first, int64_t last, int64_t part) {
                     run(plan, tokens, input, residual, output, first, last, LanesOf(scratch.of(part)));
                   });
}

}  // namespace

QuantisedMatMulKernel::QuantisedMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), weight_(ReadWeight<int8_t>(info, 1)) {
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
  Require(!residual || residual->shape == output_shape, "QuantisedMatMul: the residual has not the output's shape");
  Require(!residual || residual_scaled_, "QuantisedMatMul: a residual without residual_scale");
  Multiply(context, plan_, input->shape, threads_, input->data, residual ? residual->data : nullptr,
           output_.Get<uint8_t>(context, output_shape), RunQuantisedMatMul);
}

void QuantisedMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

DynamicMatMulKernel::DynamicMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), weight_(ReadWeight<int8_t>(info, 1)) {
  RequireMatrix("DynamicMatMul", info, weight_);
  Requantisation scales;
  scales.scale = ReadConstant<float>(info, 2, weight_.rows, "scales");
  Require(CheckRequantisation(scales, weight_.rows));
  const std::vector<float> bias = ReadBias<float>(info, 3, weight_.rows);
  Require(CheckSums(weight_, nullptr));
  Require(MakeDynamicMatMulPlan(weight_, scales.scale.data(), bias.data(), ReadEpilogue(info), OptionsFor(threads),
                                &plan_));
}

void DynamicMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "DynamicMatMul: no input");
  const std::vector<int64_t> output_shape = MatMulShape("DynamicMatMul", input->shape, weight_);
  const std::optional<FloatInput> residual = GetFloatInput(context, 4);
  Require(!residual || residual->shape == output_shape, "DynamicMatMul: the residual has not the output's shape");
  Multiply(context, plan_, input->shape, threads_, input->data, residual ? residual->data : nullptr,
           output_.Get(context, output_shape), RunDynamicMatMul);
}

void DynamicMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

}  // namespace gossamer
