#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/stem.h"

namespace gossamer {
namespace {

constexpr int64_t kMostScratchFloats = int64_t{1} << 26;
// The points of the transform besides infinity. Powers of two keep its matrices exact, pairs of opposite signs share
// sums and differences, and of the sets tried none had a smaller error by more than a fifth.
constexpr std::array<double, 6> kPoints = {0.5, -0.5, 1.0, -1.0, 2.0, -2.0};
constexpr int64_t kTransformedPoints = 7;
constexpr int64_t kTransformedTaps = 4;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return DivideUp(a, b) * b; }
int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// The value of  sum over j of taps[j] x^j  at a point, over the product of its distances to the other points.
double TransformWeight(int64_t point, const std::array<double, kTransformedTaps>& taps) {
  if (point == kTransformedPoints - 1) return taps[kTransformedTaps - 1];
  const double x = kPoints[static_cast<size_t>(point)];
  double distances = 1.0;
  for (const double other : kPoints) {
    if (other != x) distances *= x - other;
  }
  double value = 0.0;
  for (int64_t j = kTransformedTaps - 1; j >= 0; --j) value = value * x + taps[static_cast<size_t>(j)];
  return value / distances;
}

// Kernel rows are  stride * shift + residue - (-pad): the shifts from the first one on, by residue.
struct Shifts {
  int64_t first;
  int64_t count;
};

Shifts RowShifts(const ConvolutionShape& shape) {
  const int64_t first = FloorDivide(-shape.pad_top, shape.stride_height);
  const int64_t last = FloorDivide(shape.kernel_height - 1 - shape.pad_top, shape.stride_height);
  return {first, last - first + 1};
}

// Sums of such numbers stay far within the range of a float, transformed or not; NaN is not among them.
bool IsOrdinary(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::abs(value) < kOrdinaryStemValue; });
}

bool ShouldTransform(const ConvolutionShape& shape) {
  return RowShifts(shape).count <= kTransformedTaps &&
         kTransformedPoints * shape.stride_height < 4 * shape.kernel_height;
}

class StemPacker {
 public:
  StemPacker(const float* weight, StemPlan* plan) : weight_(weight), plan_(plan) {}

  void PackDirect() {
    const ConvolutionShape& shape = plan_->shape;
    plan_->points = 4;
    for (int64_t channel = 0; channel < shape.input_channels; ++channel) {
      for (int64_t row = 0; row < shape.kernel_height; ++row) plan_->inputs.push_back({channel, row - shape.pad_top});
    }
    Pack(1, [&](int64_t output, int64_t, int64_t channel, int64_t input, int64_t column) {
      return Weight(output, channel, input % shape.kernel_height, column);
    });
  }

  void PackTransformed() {
    const ConvolutionShape& shape = plan_->shape;
    const int64_t first_shift = RowShifts(shape).first;
    const int64_t residues = shape.stride_height;
    plan_->points = kTransformedPoints;
    for (int64_t channel = 0; channel < shape.input_channels; ++channel) {
      for (int64_t residue = 0; residue < residues; ++residue) {
        plan_->inputs.push_back({channel, shape.stride_height * first_shift + residue});
      }
    }
    Pack(kTransformedPoints, [&](int64_t output, int64_t point, int64_t channel, int64_t input, int64_t column) {
      std::array<double, kTransformedTaps> taps;
      for (int64_t j = 0; j < kTransformedTaps; ++j) {
        const int64_t row = shape.stride_height * (first_shift + j) + input % residues + shape.pad_top;
        taps[static_cast<size_t>(j)] = Weight(output, channel, row, column);
      }
      return static_cast<float>(TransformWeight(point, taps));
    });
  }

 private:
  template <class Value>
  void Pack(int64_t points, const Value& value) {
    const ConvolutionShape& shape = plan_->shape;
    plan_->weights.reserve(static_cast<size_t>(plan_->channel_pitch() * points * shape.kernel_width) *
                           plan_->inputs.size());
    for (int64_t block = 0; block < plan_->blocks; ++block) {
      for (int64_t point = 0; point < points; ++point) {
        for (size_t input = 0; input < plan_->inputs.size(); ++input) {
          for (int64_t column = 0; column < shape.kernel_width; ++column) {
            for (int64_t c = 0; c < plan_->traits.channels; ++c) {
              plan_->weights.push_back(value(block * plan_->traits.channels + c, point, plan_->inputs[input].channel,
                                             static_cast<int64_t>(input), column));
            }
          }
        }
      }
    }
  }

  // 0 outside of the kernel and in the channels that fill the last block.
  float Weight(int64_t output, int64_t channel, int64_t row, int64_t column) const {
    const ConvolutionShape& shape = plan_->shape;
    if (output >= shape.output_channels || row < 0 || row >= shape.kernel_height) return 0.0f;
    return weight_[((output * shape.input_channels + channel) * shape.kernel_height + row) * shape.kernel_width + column];
  }

  const float* weight_;
  StemPlan* plan_;
};

}  // namespace

int64_t StemPlan::scratch_floats() const {
  const int64_t inputs_floats = points * static_cast<int64_t>(inputs.size()) * row_floats;
  const int64_t zeros = RoundUp(width + 16, 16);
  const int64_t products = points * traits.pixels * traits.channels;
  const int64_t strip = 4 * padded_columns * channel_pitch();
  const int64_t pooled = max_pool ? RoundUp(output.width * channel_pitch(), 16) : 0;
  const int64_t own = RoundUp(inputs_floats, 16) + zeros + RoundUp(products, 16) + RoundUp(strip, 16) + 2 * pooled;
  return direct == nullptr ? own : std::max(own, direct->scratch_floats());
}

Status MakeStemPlan(const ConvolutionShape& shape, const float* weight, const float* bias, const Epilogue& epilogue,
                    int64_t height, int64_t width, const StemOptions& options, StemPlan* plan) {
  if (shape.groups != 1 || shape.dilation_height != 1 || shape.dilation_width != 1 || shape.stride_width > 2) {
    return Status::Problem("stem: groups and dilations must be 1, the stride along columns 1 or 2");
  }
  *plan = StemPlan();
  plan->shape = shape;
  plan->epilogue = epilogue;
  plan->height = height;
  plan->width = width;
  plan->rows = shape.output_height(height);
  plan->columns = shape.output_width(width);
  plan->max_pool = options.max_pool;
  const auto stored = [&](int64_t extent) { return options.max_pool ? (extent - 1) / 2 + 1 : extent; };
  plan->output = MakePanelLayout(stored(plan->rows), stored(plan->columns), options.threads);
  plan->traits = options.traits;
  plan->blocks = DivideUp(shape.output_channels, options.traits.channels);
  plan->padded_columns = RoundUp(plan->columns, options.traits.pixels);
  plan->row_floats = RoundUp(std::max(shape.pad_left + width + 16,
                                      shape.stride_width * (plan->padded_columns - 1) + shape.kernel_width), 16);
  plan->ordinary = IsOrdinary(weight, shape.output_channels * shape.input_channels * shape.taps()) &&
                   (bias == nullptr || IsOrdinary(bias, shape.output_channels));
  plan->transformed = options.may_transform && plan->ordinary && ShouldTransform(shape);

  const double inputs = static_cast<double>(shape.input_channels) * static_cast<double>(shape.kernel_height);
  const double floats = 7.0 * inputs * static_cast<double>(plan->row_floats) +
                        4.0 * static_cast<double>(plan->padded_columns) * static_cast<double>(plan->channel_pitch());
  if (floats > static_cast<double>(kMostScratchFloats)) {
    return Status::Problem("stem: four rows of the image take more than 256 MiB");
  }
  StemPacker packer(weight, plan);
  if (plan->transformed) {
    packer.PackTransformed();
  } else {
    packer.PackDirect();
  }
  plan->bias.assign(static_cast<size_t>(plan->channel_pitch()), 0.0f);
  if (bias != nullptr) std::copy_n(bias, shape.output_channels, plan->bias.begin());
  if (!plan->transformed) return Status::Ok();
  StemOptions direct_options = options;
  direct_options.may_transform = false;
  auto direct = std::make_shared<StemPlan>();
  const Status status = MakeStemPlan(shape, weight, bias, epilogue, height, width, direct_options, direct.get());
  plan->direct = std::move(direct);
  return status;
}

}  // namespace gossamer
