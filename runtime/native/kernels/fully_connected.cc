#include "kernels/fully_connected.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fully_connected.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"
#include "kernels/activation-inl.h"
#include "kernels/clamp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

int64_t RowLanes() { return static_cast<int64_t>(kLanes); }

HWY_INLINE FloatVector BundleSums(const ColumnRange& range, const RowBundle& bundle, const float* HWY_RESTRICT input,
                                  FloatVector sums) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> indices;
  const hn::Rebind<uint16_t, FloatTag> narrow;
  const float* HWY_RESTRICT weight = range.weights.data() + bundle.entry;
  const uint16_t* HWY_RESTRICT column = range.columns.data() + bundle.entry;
  const auto next = [&](FloatVector to) HWY_ATTR {
    const auto index = hn::PromoteTo(indices, hn::LoadU(narrow, column));
    to = hn::MulAdd(hn::LoadU(d, weight), hn::GatherIndex(d, input, index), to);
    weight += kLanes;
    column += kLanes;
    return to;
  };
  uint32_t step = 0;
  for (; step < bundle.whole; ++step) sums = next(sums);
  // A lane without nonzeros left keeps its sum: 0 x infinity would be NaN.
  const auto counts = hn::LoadU(indices, range.counts.data() + bundle.count);
  for (; step < bundle.steps; ++step) {
    const auto kept = hn::Gt(counts, hn::Set(indices, static_cast<int32_t>(step)));
    sums = hn::IfThenElse(hn::RebindMask(d, kept), next(sums), sums);
  }
  return sums;
}

void MultiplySlices(const FullyConnectedPlan& plan, const float* input, const float* residual, float* output,
                    int64_t first, int64_t last) {
  const FloatTag d;
  HWY_ALIGN float lane[kLanes];
  for (int64_t slice = first; slice < last; ++slice) {
    const size_t s = static_cast<size_t>(slice);
    // Every range has the same bundles in the same order.
    for (size_t b = 0; b < plan.ranges[0].bundles[s].size(); ++b) {
      const int32_t* rows = plan.rows.data() + plan.ranges[0].bundles[s][b].row;
      for (size_t i = 0; i < kLanes; ++i) lane[i] = rows[i] < 0 ? 0.0f : plan.bias[static_cast<size_t>(rows[i])];
      FloatVector sums = hn::Load(d, lane);
      for (const ColumnRange& range : plan.ranges) {
        sums = BundleSums(range, range.bundles[s][b], input + range.first_column, sums);
      }
      if (residual != nullptr) {
        for (size_t i = 0; i < kLanes; ++i) lane[i] = rows[i] < 0 ? 0.0f : residual[rows[i]];
        sums = hn::Add(sums, hn::Load(d, lane));
      }
      sums = Clamped(sums, hn::Set(d, plan.epilogue.lower), hn::Set(d, plan.epilogue.upper));
      sums = Activate(d, sums, plan.epilogue);
      hn::Store(sums, d, lane);
      for (size_t i = 0; i < kLanes; ++i) {
        if (rows[i] >= 0) output[rows[i]] = lane[i];
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {
namespace {

constexpr int64_t kRangeColumns = 65536;

// The nonzeros of every row within columns [first, first + 65536).
struct RowRange {
  std::vector<uint32_t> begin;
  std::vector<uint32_t> end;
};

RowRange TakeRange(const SparseWeight& weight, int64_t first, const std::vector<uint32_t>& begin) {
  RowRange range{begin, begin};
  for (size_t row = 0; row < begin.size(); ++row) {
    while (range.end[row] < weight.row_start[row + 1] &&
           static_cast<int64_t>(weight.column[range.end[row]]) < first + kRangeColumns) {
      ++range.end[row];
    }
  }
  return range;
}

// A lane without nonzeros left repeats its last column, and keeps its sum.
void AppendBundle(const SparseWeight& weight, const RowRange& range, const int32_t* rows, size_t lanes,
                  ColumnRange* packed, RowBundle* bundle) {
  bundle->entry = packed->weights.size();
  bundle->count = packed->counts.size();
  for (size_t lane = 0; lane < lanes; ++lane) {
    const size_t row = static_cast<size_t>(rows[lane]);
    packed->counts.push_back(rows[lane] < 0 ? 0 : static_cast<int32_t>(range.end[row] - range.begin[row]));
  }
  const auto [least, most] = std::minmax_element(packed->counts.end() - static_cast<ptrdiff_t>(lanes), packed->counts.end());
  bundle->whole = static_cast<uint32_t>(*least);
  bundle->steps = static_cast<uint32_t>(*most);
  for (uint32_t step = 0; step < bundle->steps; ++step) {
    for (size_t lane = 0; lane < lanes; ++lane) {
      float value = 0.0f;
      uint16_t column = 0;
      if (rows[lane] >= 0) {
        const size_t row = static_cast<size_t>(rows[lane]);
        const uint32_t count = range.end[row] - range.begin[row];
        if (step < count) value = weight.value[range.begin[row] + step];
        if (count > 0) {
          column = static_cast<uint16_t>(
              static_cast<int64_t>(weight.column[range.begin[row] + std::min(step, count - 1)]) - packed->first_column);
        }
      }
      packed->weights.push_back(value);
      packed->columns.push_back(column);
    }
  }
}

}  // namespace

HWY_EXPORT(RowLanes);
HWY_EXPORT(MultiplySlices);

Status MakeFullyConnectedPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue, int64_t slices,
                              FullyConnectedPlan* plan) {
  *plan = FullyConnectedPlan();
  plan->inputs = weight.columns;
  plan->outputs = weight.rows;
  plan->lanes = HWY_DYNAMIC_DISPATCH(RowLanes)();
  plan->epilogue = epilogue;
  plan->slices = std::max<int64_t>(1, slices);
  plan->bias.assign(static_cast<size_t>(weight.rows), 0.0f);
  if (bias != nullptr) plan->bias.assign(bias, bias + weight.rows);

  // Rows of about the same length share a bundle; bundles are dealt to the slices in snake order.
  std::vector<int32_t> order;
  for (int64_t row = 0; row < weight.rows; ++row) order.push_back(static_cast<int32_t>(row));
  const auto kept = [&](int32_t row) {
    return weight.row_start[static_cast<size_t>(row) + 1] - weight.row_start[static_cast<size_t>(row)];
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return kept(a) < kept(b); });
  const size_t lanes = static_cast<size_t>(plan->lanes);
  order.resize((order.size() + lanes - 1) / lanes * lanes, -1);
  plan->rows = order;

  std::vector<uint32_t> begin(weight.row_start.begin(), weight.row_start.end() - 1);
  for (int64_t first = 0; first < weight.columns; first += kRangeColumns) {
    const RowRange range = TakeRange(weight, first, begin);
    ColumnRange packed;
    packed.first_column = first;
    const size_t parts = static_cast<size_t>(plan->slices);
    packed.bundles.resize(parts);
    for (size_t i = 0; i * lanes < plan->rows.size(); ++i) {
      RowBundle bundle;
      bundle.row = i * lanes;
      AppendBundle(weight, range, plan->rows.data() + bundle.row, lanes, &packed, &bundle);
      const size_t place = i % parts;
      packed.bundles[(i / parts) % 2 == 0 ? place : parts - 1 - place].push_back(bundle);
    }
    plan->ranges.push_back(std::move(packed));
    begin = range.end;
  }
  return Status::Ok();
}

void RunFullyConnected(const FullyConnectedPlan& plan, const float* input, const float* residual, float* output,
                       int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(MultiplySlices)(plan, input, residual, output, first, last);
}

}  // namespace gossamer
#endif  // HWY_ONCE
