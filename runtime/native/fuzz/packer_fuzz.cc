// libFuzzer target: bytes that somebody else wrote, through the decoder, the packers and the kernels that trust them.
//
// An input is 16 bytes that choose what the weight is used for, then a packed weight. All of it runs under the
// sanitizers. Every buffer of the kernels has exactly the size that the op library would ask ONNX Runtime for.
//
//   packer_fuzz CORPUS -max_total_time=60 (make fuzz SECONDS=60)
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "format/checksum.h"
#include "format/sparse_weight.h"
#include "hwy/detect_targets.h"
#include "kernels/convolution.h"
#include "kernels/depthwise.h"
#include "kernels/fully_connected.h"
#include "kernels/matmul.h"
#include "kernels/max_pool.h"
#include "kernels/stem.h"
#include "fuzz/quantised_fuzz.h"
#include "fuzz/recipe.h"
#include "tests/guarded_floats.h"

namespace gossamer {
namespace {

static_assert(HWY_ARCH_X86_64 == 0 || HWY_STATIC_TARGET == HWY_AVX2, "the vector code would not be AVX2's");

constexpr size_t kChecksumBytes = 4;

void FuzzFullyConnected(const SparseWeight& weight, Recipe* recipe) {
  FullyConnectedPlan plan;
  const std::vector<float> bias(static_cast<size_t>(weight.rows), 1.0f);
  const Epilogue epilogue = TakeEpilogue(recipe);
  const float* given = recipe->Take(2) ? bias.data() : nullptr;
  if (!MakeFullyConnectedPlan(weight, given, epilogue, 1 + recipe->Take(4), &plan).ok()) return;
  const GuardedFloats input = GuardedFloats(weight.columns);
  const GuardedFloats residual = recipe->Take(2) ? GuardedFloats(weight.rows) : GuardedFloats();
  const GuardedFloats output = GuardedFloats(weight.rows);
  RunFullyConnected(plan, input.get(), residual.get(), output.get(), 0, plan.items());
}

void FuzzMatMul(const SparseWeight& weight, Recipe* recipe) {
  MatMulPlan plan;
  PlanOptions options;
  options.traits = CurrentKernelTraits();
  const Epilogue epilogue = TakeEpilogue(recipe);
  options.threads = 1 + recipe->Take(4);
  options.block_bytes = 64 * recipe->Take(256);
  const int64_t tokens = 1 + recipe->Take(256);
  if (weight.rows * tokens > kMostFloats || weight.columns * tokens > kMostFloats) return;
  if (!MakeMatMulPlan(weight, nullptr, epilogue, options, &plan).ok()) return;
  if (plan.product.entries * static_cast<size_t>(tokens) > kMostProducts) return;
  const GuardedFloats input = GuardedFloats(weight.columns * tokens);
  const GuardedFloats residual = recipe->Take(2) ? GuardedFloats(weight.rows * tokens) : GuardedFloats();
  const GuardedFloats output = GuardedFloats(weight.rows * tokens);
  const GuardedFloats scratch = GuardedFloats((plan.scratch_floats() + 15) / 16 * 16);
  RunMatMul(plan, tokens, input.get(), residual.get(), output.get(), 0, plan.items(tokens), scratch.get());
}

template <class Plan, class Run>
void RunPlan(const Plan& plan, const ConvolutionShape& shape, bool with_residual, const Run& run) {
  const ImageStrides strides{plan.input.image_stride(shape.input_channels),
                             plan.output.image_stride(shape.output_channels)};
  if (strides.input > kMostFloats || strides.output > kMostFloats || plan.scratch_floats() > 4 * kMostFloats) return;
  const GuardedFloats input = GuardedFloats(strides.input);
  const GuardedFloats residual = with_residual ? GuardedFloats(strides.output) : GuardedFloats();
  const GuardedFloats output = GuardedFloats(strides.output);
  const GuardedFloats scratch = GuardedFloats((plan.scratch_floats() + 15) / 16 * 16);
  // In two parts, the latter first, as threads take them from each other.
  const int64_t items = plan.items(1);
  for (const Range part : {Range{items / 2, items}, Range{0, items / 2}}) {
    run(plan, input.get(), residual.get(), output.get(), strides, part.first, part.last, scratch.get());
  }
}

void FuzzConvolution(const SparseWeight& weight, Recipe* recipe) {
  const ConvolutionShape shape = TakeShape(weight, recipe);
  const Epilogue epilogue = TakeEpilogue(recipe);
  const int64_t height = recipe->Take(64);
  const int64_t width = recipe->Take(256);
  if (!CheckConvolution(shape, weight).ok() || !CheckImage(shape, height, width).ok()) return;
  if (shape.output_height(height) * shape.output_width(width) > kMostFloats) return;
  const int64_t pixels = shape.output_height(height) * shape.output_width(width);
  if (weight.kept() * static_cast<size_t>(pixels) > kMostProducts) return;

  PlanOptions options;
  options.traits = CurrentKernelTraits();
  options.threads = 1 + recipe->Take(4);
  options.block_bytes = 64 * recipe->Take(256);
  const int64_t flags = recipe->Take(4);
  options.column_shift = flags & 1;
  const bool with_residual = flags & 2;
  if (IsDepthwise(shape)) {
    const std::vector<float> bias(static_cast<size_t>(weight.rows), 1.0f);
    DepthwisePlan plan;
    if (!MakeDepthwisePlan(shape, weight, bias.data(), epilogue, height, width, options.threads, &plan).ok()) return;
    RunPlan(plan, shape, with_residual, RunDepthwise);
    return;
  }
  ConvolutionPlan plan;
  if (!MakeConvolutionPlan(shape, weight, nullptr, epilogue, height, width, options, &plan).ok()) return;
  RunPlan(plan, shape, with_residual, RunConvolution);
}

// The dense first convolution, with the weight's zeros written out.
void FuzzStem(const SparseWeight& weight, Recipe* recipe) {
  const ConvolutionShape shape = TakeShape(weight, recipe);
  const Epilogue epilogue = TakeEpilogue(recipe);
  const int64_t height = recipe->Take(64);
  const int64_t width = recipe->Take(256);
  StemOptions options;
  options.traits = CurrentStemTraits();
  const int64_t flags = recipe->Take(4);
  options.max_pool = flags & 1;
  options.may_transform = flags & 2;
  options.threads = 1 + recipe->Take(4);
  if (!CheckConvolution(shape, weight).ok() || !CheckImage(shape, height, width).ok()) return;
  const int64_t weights = weight.rows * weight.columns;
  const int64_t pixels = shape.output_height(height) * shape.output_width(width);
  if (weights > kMostFloats || weights * pixels > static_cast<int64_t>(kMostProducts)) return;
  const GuardedFloats dense = GuardedFloats(weights, 0.0f);
  for (size_t row = 0; row < static_cast<size_t>(weight.rows); ++row) {
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      dense.get()[row * static_cast<size_t>(weight.columns) + weight.column[i]] = weight.value[i];
    }
  }
  StemPlan plan;
  if (!MakeStemPlan(shape, dense.get(), nullptr, epilogue, height, width, options, &plan).ok()) return;
  const int64_t floats = plan.output.image_stride(shape.output_channels);
  if (floats > kMostFloats || plan.scratch_floats() > 4 * kMostFloats) return;
  const GuardedFloats image = GuardedFloats(shape.input_channels * height * width);
  const GuardedFloats output = GuardedFloats(floats);
  const GuardedFloats scratch = GuardedFloats(plan.scratch_floats());
  const int64_t cut = plan.strips() * recipe->Take(4) / 4;
  if (cut == 0) {
    RunStem(plan, image.get(), output.get(), 0, plan.strips(), scratch.get());
    return;
  }
  const GuardedFloats other = GuardedFloats(plan.scratch_floats());
  RunStem(plan, image.get(), output.get(), 0, cut, scratch.get());
  RunStem(plan, image.get(), output.get(), cut, plan.strips(), other.get());
  if (plan.max_pool) RunStemSeam(plan, cut, scratch.get(), other.get(), output.get());
}

// Pooling has no weight; the shape of one says how many channels there are and how large its kernel is.
void FuzzMaxPool(const SparseWeight& weight, Recipe* recipe) {
  ConvolutionShape shape = TakeShape(weight, recipe);
  shape.groups = 1;
  shape.input_channels = shape.output_channels;
  const int64_t height = recipe->Take(64);
  const int64_t width = recipe->Take(256);
  const int64_t threads = 1 + recipe->Take(4);
  if (!CheckNumbers(shape).ok() || !CheckImage(shape, height, width).ok()) return;
  const int64_t pixels = shape.output_height(height) * shape.output_width(width);
  if (shape.output_channels * pixels * shape.taps() > static_cast<int64_t>(kMostProducts)) return;
  MaxPoolPlan plan;
  if (!MakeMaxPoolPlan(shape, height, width, threads, &plan).ok()) return;
  const ImageStrides strides{plan.input.image_stride(shape.input_channels),
                             plan.output.image_stride(shape.output_channels)};
  if (strides.input > kMostFloats || strides.output > kMostFloats || plan.scratch_floats() > kMostFloats) return;
  const GuardedFloats input = GuardedFloats(strides.input);
  const GuardedFloats output = GuardedFloats(strides.output);
  const GuardedFloats scratch = GuardedFloats((plan.scratch_floats() + 15) / 16 * 16);
  RunMaxPool(plan, input.get(), output.get(), strides, 0, plan.items(1), scratch.get());
}

// Whether a weight is one to go on with. Aborts where it contradicts itself.
template <class Value>
bool IsSmall(const SparseMatrix<Value>& weight) {
  if (weight.row_start.size() != static_cast<size_t>(weight.rows) + 1 || weight.row_start.back() != weight.kept() ||
      weight.column.size() != weight.kept()) {
    std::abort();
  }
  return weight.rows <= (1 << 16) && weight.columns <= kMostFloats;
}

void FuzzPackedWeight(std::vector<uint8_t> bytes, Recipe recipe) {
  // A fuzzer does not guess checksums: mostly the right one is put in.
  if (recipe.Take(8) != 0 && bytes.size() >= kChecksumBytes) {
    const uint32_t checksum = Checksum(bytes.data(), bytes.size() - kChecksumBytes);
    for (size_t i = 0; i < kChecksumBytes; ++i) {
      bytes[bytes.size() - kChecksumBytes + i] = static_cast<uint8_t>(checksum >> (8 * i));
    }
  }
  // A copy of exactly its size: a vector may have more room than it uses.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  SparseWeight weight;
  SparseByteWeight of_bytes;
  if (DecodeSparseWeight(exact.get(), bytes.size(), &of_bytes).ok()) {
    if (IsSmall(of_bytes)) FuzzQuantised(of_bytes, &recipe);
    return;
  }
  if (!DecodeSparseWeight(exact.get(), bytes.size(), &weight).ok() || !IsSmall(weight)) return;
  switch (recipe.Take(6)) {
    case 0:
      return FuzzFullyConnected(weight, &recipe);
    case 1:
      return FuzzMatMul(weight, &recipe);
    case 2:
      return FuzzStem(weight, &recipe);
    case 3:
      return FuzzMaxPool(weight, &recipe);
    default:
      return FuzzConvolution(weight, &recipe);
  }
}

}  // namespace
}  // namespace gossamer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < gossamer::kRecipeBytes) return 0;
  gossamer::FuzzPackedWeight(std::vector<uint8_t>(data + gossamer::kRecipeBytes, data + size), gossamer::Recipe(data));
  return 0;
}
