#include "ort/sparse_matmul.h"

#include <algorithm>

#include "kernels/convolution.h"
#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/inferred_shape.h"
#include "ort/parallel.h"

namespace gossamer {

SparseMatMulKernel::SparseMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), epilogue_(ReadEpilogue(info)), weight_(ReadWeight<float>(info, 1)) {
  Require(weight_.shape.size() == 2, "SparseMatMul: the weight's shape is not [output_features, features]");
  // Shape inference believes the attribute, for the weight's bytes are not read there.
  Require(IntegerOr(info, "output_features", weight_.rows) == weight_.rows,
          "SparseMatMul: output_features is not the number of the weight's rows");
  bias_ = ReadBias<float>(info, 2, weight_.rows);
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (known.empty()) return;
  // A product of several numbers is more than 1 as soon as one of them is known to be.
  bool one = true, many = false;
  for (size_t axis = 0; axis + 1 < known.size(); ++axis) {
    one = one && known[axis] == 1;
    many = many || known[axis] > 1;
  }
  if (one) PlanForOne();
  if (many) PlanForMany();
}

const FullyConnectedPlan& SparseMatMulKernel::PlanForOne() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!one_) {
    auto plan = std::make_unique<FullyConnectedPlan>();
    Require(MakeFullyConnectedPlan(weight_, bias_.data(), epilogue_, threads_, plan.get()));
    one_ = std::move(plan);
  }
  return *one_;
}

const MatMulPlan& SparseMatMulKernel::PlanForMany() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!many_) {
    PlanOptions options;
    options.traits = CurrentKernelTraits();
    options.threads = threads_;
    auto plan = std::make_unique<MatMulPlan>();
    Require(MakeMatMulPlan(weight_, bias_.data(), epilogue_, options, plan.get()));
    many_ = std::move(plan);
  }
  return *many_;
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
  const std::optional<FloatInput> residual = GetFloatInput(context, 3);
  Require(!residual || residual->shape == output_shape, "SparseMatMul: the residual has not the output's shape");
  const float* add = residual ? residual->data : nullptr;
  float* output = output_.Get(context, output_shape);
  // Without tokens the other dimensions cost no memory, and their product could overflow.
  if (std::find(input->shape.begin(), input->shape.end(), 0) != input->shape.end()) return;
  int64_t tokens = 1;
  for (size_t axis = 0; axis + 1 < input->shape.size(); ++axis) tokens *= input->shape[axis];

  if (tokens == 1) {
    const FullyConnectedPlan& plan = PlanForOne();
    ParallelRanges(context, plan.items(), threads_, [&](int64_t first, int64_t last, int64_t) {
      RunFullyConnected(plan, input->data, add, output, first, last);
    });
    return;
  }
  const MatMulPlan& plan = PlanForMany();
  const Scratch& scratch = Scratch::OfThisThread(plan.scratch_floats(), threads_);
  ParallelStealing(context, plan.items(tokens), threads_, plan.together(),
                   [&](int64_t first, int64_t last, int64_t part) {
                   RunMatMul(plan, tokens, input->data, add, output, first, last, scratch.of(part));
                 });
}

void SparseMatMulOp::Infer(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t outputs = IntegerOr(static_cast<const Ort::ShapeInferContext&>(context), "output_features", int64_t{0});
  if (input.empty() || outputs < 1) return;
  Require(static_cast<uint64_t>(outputs) <= kMaximumRows, "SparseMatMul: output_features must be at most 2^22");
  InferredShape output = input;
  output.back() = outputs;
  SetOutputShape(context, output);
}

}  // namespace gossamer
