// Size of a network's coded weights, and how long its decoding takes, beside the general compressors of the system.
//
//   coded_bench SHAPES [DENSITY [LEVELS [FILE]]]
//
// Weights are drawn: normal, He's scale, the largest DENSITY of each layer kept, quantised with the largest / LEVELS as the
// step. FILE gets their levels, one byte each, for zstd or xz.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "format/coded_weight.h"

namespace gossamer {
namespace {

struct Drawn {
  std::vector<int64_t> shape;
  std::vector<int32_t> levels;
  float step;
};

Drawn Draw(const LayerShape& layer, double density, int32_t most, std::mt19937* random) {
  const ConvolutionShape& shape = layer.convolution;
  Drawn drawn;
  drawn.shape = {shape.output_channels, shape.input_channels / shape.groups};
  if (shape.taps() > 1) drawn.shape.insert(drawn.shape.end(), {shape.kernel_height, shape.kernel_width});
  size_t elements = 1;
  for (const int64_t extent : drawn.shape) elements *= static_cast<size_t>(extent);
  std::vector<float> weights(elements);
  std::normal_distribution<float> normal(0.0f, std::sqrt(2.0f * static_cast<float>(drawn.shape[0]) / static_cast<float>(elements)));
  for (float& weight : weights) weight = normal(*random);
  std::vector<float> sizes(elements);
  std::transform(weights.begin(), weights.end(), sizes.begin(), [](float weight) { return std::abs(weight); });
  const auto least = sizes.begin() + static_cast<std::ptrdiff_t>((1.0 - density) * static_cast<double>(elements - 1));
  std::nth_element(sizes.begin(), least, sizes.end());
  drawn.step = *std::max_element(least, sizes.end()) / static_cast<float>(most);
  for (const float weight : weights) {
    drawn.levels.push_back(std::abs(weight) < *least ? 0 : static_cast<int32_t>(std::lround(weight / drawn.step)));
  }
  return drawn;
}

// Bytes of a layer's levels by the entropy of one table, that of the layer's own frequencies.
double Entropy(const std::vector<int32_t>& levels) {
  std::map<int32_t, double> counts;
  for (const int32_t level : levels) counts[level] += 1.0;
  double bits = 0.0;
  for (const auto& [level, count] : counts) bits += count * std::log2(static_cast<double>(levels.size()) / count);
  return bits / 8;
}

template <class Run>
double Seconds(const Run& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int Main(const std::string& shapes, double density, int32_t most, const char* file) {
  std::mt19937 random(0);
  std::vector<std::vector<uint8_t>> coded;
  size_t elements = 0, kept = 0, bytes = 0, mixed = 0;
  double entropy = 0.0, encoding = 0.0;
  std::FILE* const plain = file == nullptr ? nullptr : std::fopen(file, "wb");
  for (const LayerShape& layer : ReadShapes(shapes)) {
    for (int64_t i = 0; i < layer.times; ++i) {
      const Drawn drawn = Draw(layer, density, most, &random);
      encoding += Seconds([&] {
        coded.push_back(EncodeCodedWeight(drawn.shape, drawn.levels.data(), ValueType::kFloat32, drawn.step, int64_t{0}));
      });
      elements += drawn.levels.size();
      kept += drawn.levels.size() - static_cast<size_t>(std::count(drawn.levels.begin(), drawn.levels.end(), 0));
      bytes += coded.back().size();
      if (coded.back()[5] != static_cast<uint8_t>(LevelCoder::kGaps)) mixed += drawn.levels.size();
      entropy += Entropy(drawn.levels);
      for (const int32_t level : drawn.levels) {
        if (plain != nullptr) std::fputc(level & 255, plain);
      }
    }
  }
  if (plain != nullptr) std::fclose(plain);
  if (coded.empty()) return 1;
  std::printf("%zu weights, %zu kept, %zu of them in %zu tensors by the mixing coder\n", elements, kept, mixed, coded.size());
  std::printf("%zu bytes, %.2f bits a kept weight; entropy of one table a tensor: %.0f bytes\n", bytes,
              8.0 * static_cast<double>(bytes) / static_cast<double>(kept), entropy);
  std::printf("encoding, one thread: %.3f s\n", encoding);
  for (const int64_t threads : {1, 2, 4}) {
    std::vector<double> seconds;
    for (int repeat = 0; repeat < 7; ++repeat) {
      seconds.push_back(Seconds([&] {
        for (const std::vector<uint8_t>& one : coded) {
          SparseWeight weight;
          if (!DecodeSparseWeight(one.data(), one.size(), &weight, threads).ok()) std::abort();
        }
      }));
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf("decoding, %d threads: median %.3f s, %.3f to %.3f\n", static_cast<int>(threads), seconds[3], seconds[0],
                seconds[6]);
  }
  return 0;
}

}  // namespace
}  // namespace gossamer

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "coded_bench SHAPES [DENSITY [LEVELS [FILE]]]\n");
    return 1;
  }
  return gossamer::Main(arguments[1], count > 2 ? std::atof(arguments[2]) : 0.1, count > 3 ? std::atoi(arguments[3]) : 8,
                        count > 4 ? arguments[4] : nullptr);
}
