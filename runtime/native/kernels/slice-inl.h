// Runs the kernels over one slice of rows: the step that convolution and matrix product share.
#if defined(GOSSAMER_KERNELS_SLICE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_SLICE_INL_H_
#undef GOSSAMER_KERNELS_SLICE_INL_H_
#else
#define GOSSAMER_KERNELS_SLICE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/product_plan.h"
#include "kernels/spmm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

// Where the sums of row 0 would be. Of one block alone no sums but a stream's are waiting: they begin with its first row, so that
// they stay in the first cache.
template <class Lane>
HWY_INLINE Lane* SumsOfRow0(const ProductPlan& plan, const ChannelBlock& block, const BlockStream& stream, Lane* sums) {
  return block.first && block.last ? sums - stream.finished.first * plan.accumulator_pitch : sums;
}

// `call` for one slice of one block and one span of a tile.
template <class Call, class Lane>
HWY_INLINE Call SpanCall(const LaneSpan& span, const RowSlice& slice, const BlockStream& stream, const Lane* input,
                         Call call) {
  call.input = input + span.begin;
  call.accumulators += span.begin;
  call.span_begin = span.begin;
  call.span_lanes = span.lanes;
  call.entries = slice.entries.data() + stream.entry;
  call.counts = slice.counts.data() + stream.count;
  call.rows = slice.rows.data() + stream.row;
  call.groups = stream.singles;
  return call;
}

// One slice of one block over one span, where there is no column to shift.
template <class Call, class Lane>
HWY_INLINE void RunGroups(const ProductPlan& plan, const LaneSpan& span, const RowSlice& slice,
                          const BlockStream& stream, const Lane* input, const Call& tile_call) {
  const int64_t wide = plan.rows_per_group;
  Call call = SpanCall(span, slice, stream, input, tile_call);
  call.groups = stream.groups;
  call.entries = SpmmKernel<Call>(wide, span.lanes)(call);
  call.counts += stream.groups;
  call.rows += stream.groups * wide;
  call.groups = stream.singles;
  if (call.groups != 0) SpmmKernel<Call>(1, span.lanes)(call);
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_SLICE_INL_H_
