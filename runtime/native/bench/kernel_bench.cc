// Times every layer of a shape file with random unstructured zeros; depthwise layers without any.
//
//   kernel_bench SHAPES [--density D] [--threads N] [--block KB] [--target NAME] [--repeats N] [--no-shift] [--count]
//                [--int8] [--blocks] [--pairs] [--residual]
//
// --int8 times the kernels of bytes instead of those of floats; with --blocks zeros come in blocks of four input channels,
// with --pairs the processor's instructions for four products at once are left alone; with --residual every convolution adds one.
// Prints for each layer the median and spread of its time, GFLOP/s of the nonzeros (2 a multiply-add) and as if it were
// dense, and the share of the peak that the same instruction set reaches in registers, measured at the start.
// With --count, for instruction counts under an emulator, it measures no peak and prints each layer's multiply-adds.
#include <sys/utsname.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "bench/peak.h"
#include "bench/quantised_layers.h"
#include "bench/shapes.h"
#include "bench/timing.h"
#include "hwy/targets.h"
#include "kernels/convolution.h"
#include "kernels/depthwise.h"
#include "kernels/fully_connected.h"
#include "kernels/matmul.h"

namespace gossamer {
namespace {

SparseWeight DrawWeight(const ConvolutionShape& shape, double density, std::mt19937* random) {
  const std::vector<int64_t> extents = {shape.output_channels, shape.input_channels / shape.groups,
                                        shape.kernel_height, shape.kernel_width};
  std::vector<float> dense(static_cast<size_t>(extents[0] * extents[1] * extents[2] * extents[3]));
  std::uniform_real_distribution<float> uniform(-0.5f, 0.5f);
  std::bernoulli_distribution keep(density);
  for (float& value : dense) {
    if (keep(*random)) value = uniform(*random);
  }
  return SparseWeightFromDense(extents, dense.data());
}

bool TimeConvolution(const LayerShape& layer, const Options& options, Timing* timing) {
  std::mt19937 random(1);
  const ConvolutionShape& shape = layer.convolution;
  const SparseWeight weight = DrawWeight(shape, options.density, &random);
  PlanOptions plan_options;
  plan_options.arithmetic = options.arithmetic;
  plan_options.traits = CurrentKernelTraits(options.arithmetic);
  plan_options.threads = options.threads;
  plan_options.block_bytes = options.block_bytes;
  plan_options.column_shift = options.column_shift;
  ConvolutionPlan plan;
  const auto start = Clock::now();
  const Status status = MakeConvolutionPlan(shape, weight, nullptr, Epilogue::Of(Activation::kRelu), layer.height,
                                            layer.width, plan_options, &plan);
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", layer.name().c_str(), status.problem());
    return false;
  }
  const ImageStrides strides{plan.input.image_stride(shape.input_channels),
                             plan.output.image_stride(shape.output_channels)};
  AlignedFloats input(strides.input), output(strides.output), scratch(plan.scratch_floats());
  input.Draw(strides.input, &random);
  timing->multiply_adds = static_cast<double>(plan.nonzeros) * static_cast<double>(shape.output_height(layer.height)) *
                          static_cast<double>(shape.output_width(layer.width));
  timing->padding = static_cast<double>(plan.entries) / static_cast<double>(std::max<size_t>(plan.nonzeros, 1)) - 1.0;
  timing->blocks = plan.blocks.size();
  Measure(options, [&] {
    RunConvolution(plan, input.data(), nullptr, output.data(), strides, 0, plan.items(1), scratch.data());
  }, timing);
  return true;
}

bool TimeDepthwise(const LayerShape& layer, const Options& options, Timing* timing) {
  std::mt19937 random(1);
  const ConvolutionShape& shape = layer.convolution;
  const SparseWeight weight = DrawWeight(shape, 1.0, &random);
  DepthwisePlan plan;
  const auto start = Clock::now();
  const Status status = MakeDepthwisePlan(shape, weight, nullptr, Epilogue::Of(Activation::kRelu), layer.height,
                                          layer.width, options.threads, &plan);
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", layer.name().c_str(), status.problem());
    return false;
  }
  const ImageStrides strides{plan.input.image_stride(shape.input_channels),
                             plan.output.image_stride(shape.output_channels)};
  AlignedFloats input(strides.input), output(strides.output), scratch(plan.scratch_floats());
  input.Draw(strides.input, &random);
  timing->multiply_adds = layer.dense_multiply_adds();
  Measure(options, [&] {
    RunDepthwise(plan, input.data(), nullptr, output.data(), strides, 0, plan.items(1), scratch.data());
  }, timing);
  return true;
}

bool TimeLinear(const LayerShape& layer, const Options& options, Timing* timing) {
  std::mt19937 random(1);
  const ConvolutionShape& shape = layer.convolution;
  const SparseWeight weight = DrawWeight(shape, options.density, &random);
  const int64_t tokens = layer.width;
  AlignedFloats input(tokens * shape.input_channels), output(tokens * shape.output_channels);
  input.Draw(tokens * shape.input_channels, &random);
  timing->multiply_adds = static_cast<double>(weight.kept()) * static_cast<double>(tokens);
  const auto start = Clock::now();
  if (tokens == 1) {
    FullyConnectedPlan plan;
    if (!MakeFullyConnectedPlan(weight, nullptr, Epilogue(), options.threads, &plan).ok()) return false;
    timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
    Measure(options, [&] { RunFullyConnected(plan, input.data(), nullptr, output.data(), 0, plan.items()); }, timing);
    return true;
  }
  PlanOptions plan_options;
  plan_options.arithmetic = options.arithmetic;
  plan_options.traits = CurrentKernelTraits(options.arithmetic);
  plan_options.threads = options.threads;
  plan_options.block_bytes = options.block_bytes;
  MatMulPlan plan;
  if (!MakeMatMulPlan(weight, nullptr, Epilogue(), plan_options, &plan).ok()) return false;
  timing->packing = std::chrono::duration<double>(Clock::now() - start).count();
  AlignedFloats scratch(plan.scratch_floats());
  Measure(options, [&] {
    RunMatMul(plan, tokens, input.data(), nullptr, output.data(), 0, plan.items(tokens), scratch.data());
  }, timing);
  return true;
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  utsname system;
  return uname(&system) == 0 ? system.machine : "unknown";
}

const char* NameOf(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kFloat ? "fp32" : arithmetic == Arithmetic::kHalf ? "fp16" : "fp16 rounded";
}

bool ChooseTarget(const std::string& name) {
  if (name.empty()) return true;
  for (int64_t all = HWY_TARGETS; all != 0; all &= all - 1) {
    const int64_t target = all & -all;
    if (name != hwy::TargetName(target)) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    return true;
  }
  std::fprintf(stderr, "no instruction set %s; known:", name.c_str());
  for (int64_t all = HWY_TARGETS; all != 0; all &= all - 1) std::fprintf(stderr, " %s", hwy::TargetName(all & -all));
  std::fprintf(stderr, "\n");
  return false;
}

bool Parse(int count, char** words, Options* options) {
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const char* value = i + 1 < count ? words[i + 1] : nullptr;
    if (word == "--no-shift") {
      options->column_shift = false;
    } else if (word == "--count") {
      options->count = true;
    } else if (word == "--int8") {
      options->int8 = true;
    } else if (word == "--half") {
      options->arithmetic = HasHalfProducts() ? Arithmetic::kHalf : Arithmetic::kRoundedHalf;
    } else if (word == "--blocks") {
      options->blocks = true;
    } else if (word == "--pairs") {
      options->pairs = true;
    } else if (word == "--residual") {
      options->residual = true;
    } else if (word[0] != '-') {
      options->shapes = word;
    } else if (value == nullptr) {
      return false;
    } else {
      ++i;
      if (word == "--density") options->density = std::atof(value);
      else if (word == "--threads") options->threads = std::atoll(value);
      else if (word == "--block") options->block_bytes = std::atoll(value) << 10;
      else if (word == "--target") options->target = value;
      else if (word == "--repeats") options->repeats = std::atoi(value);
      else return false;
    }
  }
  return !options->shapes.empty();
}

int Main(int count, char** words) {
  Options options;
  if (!Parse(count, words, &options)) {
    std::fprintf(stderr, "usage: kernel_bench SHAPES [--density D] [--threads N] [--block KB] [--target NAME] "
                         "[--repeats N] [--no-shift] [--count] [--half] [--int8] [--blocks] [--pairs] [--residual]\n");
    return 2;
  }
  if (!ChooseTarget(options.target)) return 2;
  const std::vector<LayerShape> layers = ReadShapes(options.shapes);
  if (layers.empty()) return 1;

  // What multiplies four bytes a lane at once runs as often as what multiplies a float, on the processors known here.
  const double peak = options.count ? 1.0 : MeasurePeak() * (options.int8 ? 4.0 : 1.0);
  if (!options.count) {
    std::printf("%s, %s, %s, 1 thread, peak %.1f GFLOP/s, density %.3f\n", ProcessorName().c_str(), CurrentTargetName(),
                options.int8 ? options.blocks ? "int8 blocks" : "int8" : NameOf(options.arithmetic), 2e-9 * peak, options.density);
    std::printf("%-34s %5s %9s %17s %8s %9s %6s %5s %5s\n", "layer", "times", "median ms", "10% .. 90% ms", "GFLOP/s",
                "as dense", "peak", "pad", "blocks");
  }
  double total = 0.0, packing = 0.0, work = 0.0, dense = 0.0;
  for (const LayerShape& layer : layers) {
    Timing timing;
    const bool timed = options.int8                                ? TimeQuantised(layer, options, &timing)
                       : layer.kind == LayerShape::Kind::kLinear ? TimeLinear(layer, options, &timing)
                       : IsDepthwise(layer.convolution)          ? TimeDepthwise(layer, options, &timing)
                                                                 : TimeConvolution(layer, options, &timing);
    if (!timed) return 1;
    if (options.count) {
      std::printf("%s: %.0f\n", layer.name().c_str(), timing.multiply_adds);
      continue;
    }
    std::printf("%-34s %5lld %9.4f %8.4f %8.4f %8.1f %9.1f %5.1f%% %4.1f%% %5zu\n", layer.name().c_str(),
                static_cast<long long>(layer.times), 1e3 * timing.median, 1e3 * timing.low, 1e3 * timing.high,
                2e-9 * timing.multiply_adds / timing.median, 2e-9 * layer.dense_multiply_adds() / timing.median,
                100.0 * timing.multiply_adds / timing.median / peak, 100.0 * timing.padding, timing.blocks);
    const double times = static_cast<double>(layer.times);
    total += times * timing.median;
    packing += times * timing.packing;
    work += times * timing.multiply_adds;
    dense += times * layer.dense_multiply_adds();
  }
  if (options.count) return 0;
  std::printf("%-34s %5s %9.3f %17s %8.1f %9.1f %5.1f%%   packed in %.0f ms\n", "all", "", 1e3 * total, "",
              2e-9 * work / total, 2e-9 * dense / total, 100.0 * work / total / peak, 1e3 * packing);
  return 0;
}

}  // namespace
}  // namespace gossamer

int main(int count, char** words) { return gossamer::Main(count, words); }
