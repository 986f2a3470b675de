#include "kernels/convolution.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convolution.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/finish-inl.h"
#include "kernels/half_row-inl.h"
#include "kernels/tile_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {

KernelTraits CurrentTraits(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kFloat ? Traits() : HalfTraits();
}
const char* TargetNameHere() { return hwy::TargetName(HWY_TARGET); }

// Outputs far beyond the caches are fetched a tile ahead, since storing to a line that is not there waits for it: 4% of
// VGG-16, whose first layers write 12.8 MB. For ResNet-50's 3.2 MB it costs 0.3 to 1%.
int64_t Ahead(const ConvolutionPlan& plan, int64_t index) {
  constexpr int64_t kNearFloats = 1'000'000;
  const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
  const int64_t stride = plan.shape.output_channels * plan.output.pitch;
  return index + 1 < tiles && tiles * stride > kNearFloats ? stride : 0;
}

void RunItems(const ConvolutionPlan& plan, const float* input, const float* residual, float* output,
              const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  WithArithmetic(plan, [&](auto call) HWY_ATTR {
    call.bias = plan.bias.data();
    call.output_pitch = plan.output.pitch;
    call.epilogue = plan.epilogue;
    ForEachItem(plan, first, last, [&](int64_t image, int64_t tile, size_t slice, size_t end) HWY_ATTR {
      const int64_t place = image * strides.output + tile * plan.shape.output_channels * plan.output.pitch;
      call.output = output + place;
      call.residual = residual ? residual + place : nullptr;
      call.ahead = Ahead(plan, tile);
      RunBlocks(plan, tile, input + image * strides.input, 0.0f, slice, end, call, scratch, nullptr,
                [](const Range&, const float*) {});
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(CurrentTraits);
HWY_EXPORT(TargetNameHere);
HWY_EXPORT(RunItems);

KernelTraits CurrentKernelTraits(Arithmetic arithmetic) { return HWY_DYNAMIC_DISPATCH(CurrentTraits)(arithmetic); }
const char* CurrentTargetName() { return HWY_DYNAMIC_DISPATCH(TargetNameHere)(); }

void RunConvolution(const ConvolutionPlan& plan, const float* input, const float* residual, float* output,
                    const ImageStrides& strides, int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(RunItems)(plan, input, residual, output, strides, first, last, scratch);
}

}  // namespace gossamer
#endif  // HWY_ONCE
