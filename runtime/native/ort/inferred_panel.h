// The panel that an op with a window makes of a panel, for shape inference.
#ifndef GOSSAMER_ORT_INFERRED_PANEL_H_
#define GOSSAMER_ORT_INFERRED_PANEL_H_

#include "ort/attributes.h"
#include "ort/inferred_shape.h"
#include "ort/panel_shape.h"

namespace gossamer {

// Needs KnowsImage(input).
template <class Panels>
void SetPanelShape(Ort::ShapeInferContext& context, const InferredShape& input, const ConvolutionShape& shape) {
  Require(CheckImage(shape, HeightOf(input), WidthOf(input)));
  const int64_t height = shape.output_height(HeightOf(input));
  const int64_t width = shape.output_width(WidthOf(input));
  RequireImage(shape.output_channels, height, width);
  InferredShape output = input;
  output[1] = Panels::Storage(MakePanelLayout(height, width), shape.output_channels);
  if (output.size() == 4) output[2] = height;
  output[output.size() - 1] = width;
  SetOutputShape(context, output);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_INFERRED_PANEL_H_
