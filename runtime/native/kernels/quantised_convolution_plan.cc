#include "kernels/quantised_convolution_plan.h"

#include "kernels/pixel_planes.h"
#include "kernels/staging.h"

namespace gossamer {
namespace {

// Rows whose sums wait in memory to be requantised: of 112 pixels they take 28 KB.
constexpr int64_t kFinishedRows = 64;

// Sums of a row's weights: over all taps of a window, and over those whose column is shifted to the right and to the left.
struct WeightSums {
  int64_t all = 0;
  int64_t right = 0;
  int64_t left = 0;
};

WeightSums SumRow(const QuadWeight& weight, int64_t row, const Staging& staging, size_t window) {
  WeightSums sums;
  const size_t taps = staging.taps.size();
  for (uint32_t i = weight.row_start[static_cast<size_t>(row)]; i < weight.row_start[static_cast<size_t>(row) + 1]; ++i) {
    const size_t tap = weight.column[i] % taps;
    if (!staging.windows[window][tap]) continue;
    int64_t quad = 0;
    for (const int8_t one : weight.value[i].weight) quad += one;
    sums.all += quad;
    if (staging.taps[tap].column_shift < 0) sums.right += quad;
    if (staging.taps[tap].column_shift > 0) sums.left += quad;
  }
  return sums;
}

// What the sums begin with. CheckSums has bounded all of it.
void SetBias(const QuadWeight& weight, const int32_t* bias, int32_t zero_point, const Staging& staging,
             QuantisedConvolutionPlan* plan) {
  const bool shifts = plan->column_shift && !plan->wide_rows && zero_point != 0;
  for (size_t window = 0; window < staging.windows.size(); ++window) {
    for (int64_t row = 0; row < weight.rows; ++row) {
      const WeightSums sums = SumRow(weight, row, staging, window);
      const int64_t given = bias == nullptr ? 0 : bias[row];
      plan->bias.push_back(static_cast<int32_t>(given - zero_point * sums.all));
      if (!shifts) continue;
      plan->left_padding.push_back(static_cast<int32_t>(zero_point * sums.right));
      plan->right_padding.push_back(static_cast<int32_t>(zero_point * sums.left));
    }
    // Rows that fill up the last quad.
    const size_t rows = static_cast<size_t>(kQuad * plan->output_quads()) * (window + 1);
    plan->bias.resize(rows);
    if (shifts) plan->left_padding.resize(rows), plan->right_padding.resize(rows);
  }
}

}  // namespace

Status MakeQuantisedConvolutionPlan(const ConvolutionShape& shape, const SparseByteWeight& weight, const int32_t* bias,
                                    int32_t input_zero_point, const Requantisation& requantisation, int64_t height,
                                    int64_t width, const QuantisedOptions& options, QuantisedConvolutionPlan* plan) {
  if (GoesAlongOneColumn(shape, height, width)) {
    return MakeQuantisedConvolutionPlan(Turned(shape), weight, bias, input_zero_point, requantisation, width, height,
                                        options, plan);
  }
  *plan = QuantisedConvolutionPlan();
  plan->requantisation = requantisation;
  if (!requantisation.scale.empty()) plan->requantisation.scale.resize(static_cast<size_t>(kQuad * QuadsOf(shape.output_channels)), 1.0f);
  plan->within_32_bits = StaysWithin32Bits(requantisation, LargestSums(weight, bias));
  plan->table = PanelTable(requantisation.table);
  plan->quads = options.traits.quads;
  plan->padding = PanelLaneOf(input_zero_point);

  PlanOptions product;
  product.traits = options.traits.kernel;
  product.threads = options.threads;
  product.block_bytes = options.block_bytes;
  product.column_shift = options.column_shift;
  product.row_quantum = kQuad;
  product.finished_rows = kFinishedRows;
  const PanelLayout output = MakePanelLayout(shape.output_height(height), shape.output_width(width), options.threads);
  product.pixel_planes = options.traits.kernel.sums_quads && SuitsPixelPlanes(shape, output);
  product.joins_last_bytes = product.pixel_planes && JoinsLastBytes(shape.kernel_width);
  const QuadWeight quads = product.pixel_planes ? QuadsOfPixels(shape, weight) : QuadsFromWeight(shape, weight, options.traits.split_pairs);
  const ConvolutionShape lanes = product.pixel_planes ? PixelShape(shape) : QuadShape(shape);
  Staging staging;
  if (const Status status = MakeProductPlan(lanes, quads, height, width, product, plan, &staging);
      !status.ok()) {
    return status;
  }
  SetBias(quads, bias, input_zero_point - kPanelOffset, staging, plan);
  return Status::Ok();
}

}  // namespace gossamer
