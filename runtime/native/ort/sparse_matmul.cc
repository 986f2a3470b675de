#include "ort/sparse_matmul.h"

#include "kernels/convolution.h"
#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/panel_shape.h"
#include "ort/parallel.h"

namespace gossamer {

SparseMatMulKernel::SparseMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), epilogue_(ReadEpilogue(info)), weight_(ReadWeight(info, 1)) {
  bias_ = ReadBias(info, 2, weight_.rows);
  const std::vector<int64_t> known = KnownShape(info, 0);
  int64_t tokens = 1;
  for (size_t axis = 0; axis + 1 < known.size(); ++axis) {
    if (known[axis] < 1 || known[axis] > kMaximumExtent) return;
    tokens *= known[axis];
    if (tokens > kMaximumExtent) return;
  }
  if (!known.empty()) Plan(tokens);
}

std::shared_ptr<const SparseMatMulKernel::Plans> SparseMatMulKernel::Plan(int64_t tokens) {
  return plans_.Get({tokens, 0}, [&] {
    auto plans = std::make_shared<Plans>();
    if (tokens == 1) {
      Require(MakeFullyConnectedPlan(weight_, bias_.data(), epilogue_, threads_, &plans->one));
      return plans;
    }
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    options.slices = threads_;
    Require(MakeMatMulPlan(weight_, bias_.data(), epilogue_, tokens, options, &plans->many));
    return plans;
  });
}

void SparseMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input && !input->shape.empty(), "SparseMatMul: expected an input of at least one dimension");
  if (input->shape.back() != weight_.columns) {
    Fail("SparseMatMul: the weight takes " + std::to_string(weight_.columns) + " features, the input has " +
         std::to_string(input->shape.back()));
  }
  std::vector<int64_t> output_shape = input->shape;
  output_shape.back() = weight_.rows;
  int64_t tokens = 1;
  for (size_t axis = 0; axis + 1 < input->shape.size(); ++axis) tokens *= input->shape[axis];
  float* output = context.GetOutput(0, output_shape).GetTensorMutableData<float>();
  if (tokens == 0) return;

  const std::shared_ptr<const Plans> plans = Plan(tokens);
  if (tokens == 1) {
    ParallelRanges(context, plans->one.items(), threads_, [&](int64_t first, int64_t last, int64_t) {
      RunFullyConnected(plans->one, input->data, output, first, last);
    });
    return;
  }
  const MatMulPlan& plan = plans->many;
  const int64_t scratch_floats = (plan.scratch_floats() + 15) / 16 * 16;
  float* scratch = Scratch::OfThisThread(scratch_floats * threads_);
  ParallelRanges(context, plan.items(), threads_, [&](int64_t first, int64_t last, int64_t part) {
    RunMatMul(plan, input->data, output, first, last, scratch + part * scratch_floats);
  });
}

void SparseMatMulOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t outputs = IntegerOr(static_cast<const Ort::ShapeInferContext&>(context), "output_features", int64_t{0});
  if (input.empty() || outputs < 1) return;
  InferredShape output = input;
  output.back() = outputs;
  Ort::ThrowOnError(context.SetOutputShape(0, output));
}

}  // namespace gossamer
