#include "ort/sparse_matmul.h"

#include "kernels/convolution.h"
#include "kernels/half_weight.h"
#include "ort/constants.h"
#include "ort/matmul_op.h"
#include "ort/parallel.h"

namespace gossamer {

SparseMatMulKernel::SparseMatMulKernel(const Ort::ConstKernelInfo& info, int64_t threads)
    : threads_(threads), epilogue_(ReadEpilogue(info)), arithmetic_(ReadArithmetic(info)) {
  weight_ = ReadWeight(info, 1, threads, &bias_);
  RequireMatrix("SparseMatMul", info, weight_);
  bias_ = ReadBias(info, 2, weight_.rows, std::move(bias_));
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
    options.arithmetic = HalvesPay(weight_, weight_.columns) ? arithmetic_ : Arithmetic::kFloat;
    options.traits = CurrentKernelTraits(options.arithmetic);
    options.threads = threads_;
    auto plan = std::make_unique<MatMulPlan>();
    Require(MakeMatMulPlan(weight_, bias_.data(), epilogue_, options, plan.get()));
    many_ = std::move(plan);
  }
  return *many_;
}

void SparseMatMulKernel::Compute(Ort::KernelContext& context) {
  const std::optional<FloatInput> input = GetFloatInput(context, 0);
  Require(input.has_value(), "SparseMatMul: no input");
  const std::vector<int64_t> output_shape = MatMulShape("SparseMatMul", input->shape, weight_);
  const std::optional<FloatInput> residual = GetFloatInput(context, 3);
  Require(!residual || residual->shape == output_shape, "SparseMatMul: the residual has not the output's shape");
  const float* add = residual ? residual->data : nullptr;
  float* output = output_.Get(context, output_shape);
  const int64_t tokens = TokensOf(input->shape);
  if (tokens == 0) return;
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

void SparseMatMulOp::Infer(Ort::ShapeInferContext& context) { InferMatMul(kName, context); }

}  // namespace gossamer
