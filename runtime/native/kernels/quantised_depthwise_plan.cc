#include <algorithm>
#include <utility>

#include "kernels/depthwise.h"
#include "kernels/limits.h"
#include "kernels/quantised_depthwise.h"
#include "kernels/staging.h"

namespace gossamer {
namespace {

// Scratch of one thread at most, in lanes: 4 MiB.
constexpr int64_t kMaximumStageLanes = int64_t{1} << 20;
// Weights at most, zeros included.
constexpr int64_t kMaximumWeights = int64_t{1} << 24;
// Vectors are read and written whole.
constexpr int64_t kSlackLanes = 32;

int64_t RoundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// The same over lanes of four channels, of which each is a group.
ConvolutionShape OfLanes(const ConvolutionShape& shape) {
  ConvolutionShape lanes = shape;
  lanes.input_channels = lanes.output_channels = lanes.groups = QuadsOf(shape.input_channels);
  return lanes;
}

// The weights of one lane of channels, dense: [channel][tap of the staging].
std::vector<int8_t> DenseLane(const SparseByteWeight& weight, int64_t lane, const std::vector<int64_t>& place, int64_t taps) {
  std::vector<int8_t> dense(static_cast<size_t>(kQuad * taps), 0);
  for (int64_t c = 0; c < std::min(kQuad, weight.rows - kQuad * lane); ++c) {
    const size_t row = static_cast<size_t>(kQuad * lane + c);
    for (uint32_t i = weight.row_start[row]; i < weight.row_start[row + 1]; ++i) {
      const int64_t tap = place[weight.column[i]];
      if (tap >= 0) dense[static_cast<size_t>(c * taps + tap)] = weight.value[i];
    }
  }
  return dense;
}

// Adds four taps from `first` on. Where pairs of products could leave 16 bits: the even ones, then the odd ones.
void AddTaps(const std::vector<HaloTap>& taps, const std::vector<int8_t>& dense, size_t first, bool split_pairs,
             std::vector<TapQuad>* quads) {
  TapQuad quad = {};
  bool overflows = false;
  for (size_t c = 0; c < kQuad; ++c) {
    Quad of_channel = {};
    for (size_t k = 0; k < kQuad; ++k) {
      const size_t tap = std::min(first + k, taps.size() - 1);
      quad.offset[k] = static_cast<int32_t>(taps[tap].offset);
      if (first + k < taps.size()) of_channel.weight[k] = dense[c * taps.size() + tap];
      quad.weight[c * kQuad + k] = of_channel.weight[k];
    }
    overflows = overflows || PairsOverflow(of_channel);
  }
  if (!split_pairs || !overflows) {
    quads->push_back(quad);
    return;
  }
  for (size_t odd = 0; odd < 2; ++odd) {
    TapQuad half = quad;
    for (size_t i = 1 - odd; i < kQuad * kQuad; i += 2) half.weight[i] = 0;
    quads->push_back(half);
  }
}

}  // namespace

bool SuitsQuantisedDepthwise(const ConvolutionShape& shape, int64_t height, int64_t width, int64_t threads) {
  if (!IsDepthwise(shape) || shape.output_channels != shape.input_channels) return false;
  if (GoesAlongOneColumn(shape, height, width)) {
    return SuitsQuantisedDepthwise(Turned(shape), width, height, threads);
  }
  const PanelLayout input = MakePanelLayout(height, width, threads);
  const PanelLayout output = MakePanelLayout(shape.output_height(height), shape.output_width(width), threads);
  const Axis rows = RowAxis(shape, input, output);
  const std::vector<AxisTap> live = LiveTaps(rows);
  if (live.empty() || LiveTaps(ColumnAxis(shape, input, output)).empty()) return false;
  // A plan for more would be refused.
  if (output.bands > kMaximumStageCopies / static_cast<int64_t>(live.size())) return false;
  // Rows of taps that tiles need, of all: the others would read padding.
  int64_t needed = 0;
  for (int64_t index = 0; index < output.tiles(); index += output.segments) {
    const Tile tile = output.tile(index);
    const Range of_tile = LiveRange(rows, live, tile.row, tile.row + tile.rows);
    needed += of_tile.last - of_tile.first;
  }
  return 4 * needed >= 3 * output.bands * static_cast<int64_t>(live.size());
}

Status MakeQuantisedDepthwisePlan(const ConvolutionShape& shape, const SparseByteWeight& weight, const int32_t* bias,
                                  int32_t input_zero_point, const Requantisation& requantisation, int64_t height,
                                  int64_t width, const QuantisedOptions& options, QuantisedDepthwisePlan* plan) {
  if (GoesAlongOneColumn(shape, height, width)) {
    return MakeQuantisedDepthwisePlan(Turned(shape), weight, bias, input_zero_point, requantisation, width, height,
                                      options, plan);
  }
  *plan = QuantisedDepthwisePlan();
  plan->shape = OfLanes(shape);
  plan->channels = shape.input_channels;
  plan->input = MakePanelLayout(height, width, options.threads);
  plan->output = MakePanelLayout(shape.output_height(height), shape.output_width(width), options.threads);
  plan->requantisation = requantisation;
  plan->within_32_bits = StaysWithin32Bits(requantisation, LargestSums(weight, bias));
  plan->table = PanelTable(requantisation.table);
  plan->quads = options.traits.quads;
  plan->padding = PanelLaneOf(input_zero_point);
  const int64_t lanes = plan->shape.input_channels;
  plan->parts = std::clamp<int64_t>(options.threads, 1, lanes);
  if (shape.input_channels > kMaximumWeights / shape.taps()) {
    return Status::Problem("depthwise convolution: more than 2^24 weights");
  }
  HaloStaging staging;
  if (const Status status = MakeHaloStaging(plan->shape, plan->input, plan->output, kMaximumStageLanes, true, &staging);
      !status.ok()) {
    return status;
  }
  for (int64_t index = 0; index < plan->output.tiles(); ++index) {
    const Tile tile = plan->output.tile(index);
    TilePlan planned = {};
    planned.rows = static_cast<int32_t>(tile.rows);
    planned.columns = static_cast<int32_t>(tile.columns);
    planned.copies = std::move(staging.copies[static_cast<size_t>(index)]);
    plan->tiles.push_back(std::move(planned));
  }
  plan->row_lanes = staging.row_floats;
  plan->stage_lanes = RoundUp(staging.channel_floats + kSlackLanes, 16);
  plan->result_lanes = RoundUp(plan->output.tile_rows * plan->row_lanes + kSlackLanes, 16);

  std::vector<int64_t> place(static_cast<size_t>(shape.taps()), -1);
  for (size_t tap = 0; tap < staging.taps.size(); ++tap) {
    place[static_cast<size_t>(staging.taps[tap].tap)] = static_cast<int64_t>(tap);
  }
  plan->requantisation.scale.resize(static_cast<size_t>(kQuad * lanes), 1.0f);
  plan->first_tap.push_back(0);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const std::vector<int8_t> dense = DenseLane(weight, lane, place, static_cast<int64_t>(staging.taps.size()));
    for (size_t tap = 0; tap < staging.taps.size(); tap += kQuad) {
      AddTaps(staging.taps, dense, tap, options.traits.split_pairs, &plan->taps);
    }
    plan->first_tap.push_back(static_cast<uint32_t>(plan->taps.size()));
    for (int64_t c = 0; c < kQuad; ++c) {
      const int64_t channel = kQuad * lane + c;
      int64_t sum = bias == nullptr || channel >= weight.rows ? 0 : bias[channel];
      for (size_t tap = 0; tap < staging.taps.size(); ++tap) {
        sum -= (input_zero_point - kPanelOffset) * dense[static_cast<size_t>(c) * staging.taps.size() + tap];
      }
      plan->bias.push_back(static_cast<int32_t>(sum));
    }
  }
  return Status::Ok();
}

}  // namespace gossamer
