// What ops at the edges of panels have in common, whatever the panels hold.
#ifndef GOSSAMER_ORT_PANEL_EDGES_H_
#define GOSSAMER_ORT_PANEL_EDGES_H_

#include <string>

#include "kernels/limits.h"
#include "ort/attributes.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"

namespace gossamer {

template <class Panels>
void InferToPanel(Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  if (!KnowsImage(input) || !input[1].IsInt() || input[1].AsInt() < 1) return;
  RequireImage(input[1].AsInt(), HeightOf(input), WidthOf(input));
  const PanelLayout layout = MakePanelLayout(HeightOf(input), WidthOf(input));
  InferredShape output = input;
  output[1] = Panels::Storage(layout, input[1].AsInt());
  SetOutputShape(context, output);
}

// The attribute channels of an op that reads a panel.
inline int64_t RequireChannels(const std::string& op, const Ort::ConstKernelInfo& info) {
  const int64_t channels = IntegerOr(info, "channels", int64_t{0});
  if (channels < 1 || channels > kMaximumExtent) Fail(op + ": the attribute channels must be within 1 and 2^24");
  const std::vector<int64_t> known = KnownShape(info, 0);
  if (KnowsImage(known)) RequireImage(channels, ImageOf(known).height, ImageOf(known).width);
  return channels;
}

inline void InferFromPanel(const std::string& op, Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t channels = IntegerOr(static_cast<const Ort::ShapeInferContext&>(context), "channels", int64_t{0});
  if ((input.size() != 3 && input.size() != 4) || channels < 1) return;
  if (channels > kMaximumExtent) Fail(op + ": the attribute channels must be within 1 and 2^24");
  if (KnowsImage(input)) RequireImage(channels, HeightOf(input), WidthOf(input));
  InferredShape output = input;
  output[1] = channels;
  SetOutputShape(context, output);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PANEL_EDGES_H_
