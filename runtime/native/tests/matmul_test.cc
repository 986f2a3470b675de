#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/draw.h"
#include "tests/panels.h"
#include "tests/reference.h"
#include "tests/targets.h"

namespace gossamer {
namespace {

struct Case {
  int64_t inputs = 1;
  int64_t outputs = 1;
  double density = 0.3;
  Epilogue epilogue;
  int64_t threads = 1;
  int64_t workers = 1;
  int64_t block_bytes = 0;
  int residual = 0;  // 1: apart from the output, 2: in its place
};

// One plan, several numbers of tokens.
void CheckIn(Arithmetic arithmetic, const Case& c, const std::vector<int64_t>& numbers_of_tokens) {
  std::mt19937 random(static_cast<unsigned>(c.inputs + c.outputs));
  const std::vector<float> dense = RandomSparse(static_cast<size_t>(c.inputs * c.outputs), c.density, &random);
  const std::vector<float> bias = RandomValues(static_cast<size_t>(c.outputs), &random);
  PlanOptions options;
  options.arithmetic = arithmetic;
  options.traits = CurrentKernelTraits(arithmetic);
  options.threads = c.threads;
  options.block_bytes = c.block_bytes;
  MatMulPlan plan;
  const SparseWeight weight = SparseWeightFromDense({c.outputs, c.inputs}, dense.data());
  ASSERT_TRUE(MakeMatMulPlan(weight, bias.data(), c.epilogue, options, &plan).ok());
  for (const int64_t tokens : numbers_of_tokens) {
    SCOPED_TRACE(testing::Message() << tokens << " x " << c.inputs << " -> " << c.outputs << ", density " << c.density
                                    << ", activation " << static_cast<int>(c.epilogue.activation) << ", threads "
                                    << c.threads << ", workers " << c.workers << ", block " << c.block_bytes
                                    << ", residual " << c.residual << ", arithmetic " << static_cast<int>(arithmetic));
    const std::vector<float> input = RandomValues(static_cast<size_t>(tokens * c.inputs), &random);
    const std::vector<float> other = RandomValues(static_cast<size_t>(tokens * c.outputs), &random);
    AlignedFloats output(tokens * c.outputs);
    if (c.residual == 2) std::copy(other.begin(), other.end(), output.data());
    const float* add = c.residual == 0 ? nullptr : c.residual == 1 ? other.data() : output.data();
    const int64_t items = plan.items(tokens);
    // The last part first: what one wrote of the rows before its own would be overwritten the other way round.
    for (int64_t worker = c.workers; worker-- > 0;) {
      AlignedFloats scratch(plan.scratch_floats());
      RunMatMul(plan, tokens, input.data(), add, output.data(), items * worker / c.workers,
                items * (worker + 1) / c.workers, scratch.data());
      ASSERT_TRUE(scratch.guard_is_untouched());
    }
    ASSERT_TRUE(output.guard_is_untouched());
    ConvolutionShape shape;
    shape.input_channels = c.inputs;
    shape.output_channels = c.outputs;
    for (int64_t token = 0; token < tokens; ++token) {
      const ReferenceResult expected =
          ReferenceConvolution(shape, dense, bias, c.residual == 0 ? nullptr : other.data() + token * c.outputs,
                               c.epilogue, 1, 1, input.data() + token * c.inputs);
      for (int64_t i = 0; i < c.outputs; ++i) {
        ASSERT_NEAR(output.data()[token * c.outputs + i], expected.value[static_cast<size_t>(i)],
                    AllowedError(arithmetic, c.epilogue) * (1e-3 + expected.magnitude[static_cast<size_t>(i)]))
            << "token " << token << ", output " << i;
      }
    }
  }
}

void Check(const Case& c, const std::vector<int64_t>& numbers_of_tokens) {
  ForEachArithmetic([&](Arithmetic arithmetic) { CheckIn(arithmetic, c, numbers_of_tokens); });
}

TEST(MatMul, AnyNumberOfTokensWithOnePlan) {
  std::vector<int64_t> numbers;
  for (int64_t tokens = 1; tokens <= 140; ++tokens) numbers.push_back(tokens);
  numbers.push_back(300);
  ForEachTarget([&] {
    Case c;
    c.inputs = 37;
    c.outputs = 23;
    Check(c, numbers);
    c.threads = c.workers = 2;
    Check(c, numbers);
  });
}

TEST(MatMul, SlicesBlocksAndDensities) {
  ForEachTarget([] {
    for (const double density : {0.0, 0.05, 1.0}) {
      for (const int64_t threads : {1, 2, 5, 30}) {
        for (const int64_t workers : {1, 3, 30}) {
          Case c;
          c.inputs = 70;
          c.outputs = 26;
          c.density = density;
          c.threads = threads;
          c.workers = workers;
          c.block_bytes = 4096;
          Check(c, {50, 7});
        }
      }
    }
  });
}

TEST(MatMul, EveryEpilogueAndResidual) {
  const Epilogue epilogues[] = {Epilogue(),
                                Epilogue::Of(Activation::kRelu),
                                Epilogue::Clip(-0.25f, 0.5f),
                                Epilogue::Of(Activation::kHardSwish),
                                Epilogue::Of(Activation::kSilu),
                                Epilogue::Of(Activation::kGelu),
                                Epilogue::LeakyRelu(0.2f)};
  ForEachTarget([&] {
    for (const Epilogue& epilogue : epilogues) {
      for (const int residual : {0, 1, 2}) {
        Case c;
        c.inputs = 50;
        c.outputs = 45;
        c.epilogue = epilogue;
        c.residual = residual;
        c.threads = 2;
        c.workers = 2;
        Check(c, {33, 2});
      }
    }
  });
}

TEST(MatMul, ShapesDrawnAtRandom) {
  const int rounds = RoundsOr(40);
  ForEachTarget([&] {
    for (int round = 0; round < rounds; ++round) {
      Draw draw(round);
      Case c;
      c.inputs = draw(1, 200);
      c.outputs = draw(1, 90);
      c.density = std::vector<double>{0.0, 0.02, 0.1, 0.5, 1.0}[static_cast<size_t>(draw(0, 4))];
      c.threads = draw(1, 3);
      c.workers = draw(1, 3);
      c.block_bytes = draw(0, 1) == 0 ? 0 : draw(1, 16) << 10;
      c.residual = static_cast<int>(draw(0, 2));
      Check(c, {draw(1, 40), draw(1, 200)});
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

}  // namespace
}  // namespace gossamer
