#include "bench/shapes.h"

#include <cstdio>
#include <fstream>
#include <sstream>

namespace gossamer {
namespace {

bool ReadConvolution(std::istringstream* line, LayerShape* layer) {
  ConvolutionShape& shape = layer->convolution;
  int64_t padding = 0;
  if (!(*line >> shape.input_channels >> layer->height >> layer->width >> shape.output_channels >>
        shape.kernel_height >> shape.stride_height >> padding >> shape.groups >> layer->times)) {
    return false;
  }
  shape.kernel_width = shape.kernel_height;
  shape.stride_width = shape.stride_height;
  shape.pad_top = shape.pad_left = shape.pad_bottom = shape.pad_right = padding;
  return true;
}

bool ReadLinear(std::istringstream* line, LayerShape* layer) {
  layer->kind = LayerShape::Kind::kLinear;
  return static_cast<bool>(*line >> layer->convolution.input_channels >> layer->convolution.output_channels >>
                           layer->width >> layer->times);
}

}  // namespace

std::string LayerShape::name() const {
  std::ostringstream text;
  const ConvolutionShape& shape = convolution;
  if (kind == Kind::kLinear) {
    text << width << " x " << shape.input_channels << " -> " << shape.output_channels << " linear";
  } else {
    text << shape.input_channels << " x " << height << " x " << width << " -> " << shape.output_channels << " k"
         << shape.kernel_height << " s" << shape.stride_height;
    if (shape.groups != 1) text << " g" << shape.groups;
  }
  return text.str();
}

double LayerShape::dense_multiply_adds() const {
  const ConvolutionShape& shape = convolution;
  return static_cast<double>(shape.output_channels) * static_cast<double>(shape.input_channels / shape.groups) *
         static_cast<double>(shape.taps()) * static_cast<double>(shape.output_height(height)) *
         static_cast<double>(shape.output_width(width));
}

std::vector<LayerShape> ReadShapes(const std::string& path) {
  std::vector<LayerShape> layers;
  std::ifstream file(path);
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    std::istringstream line(text);
    std::string kind;
    if (!(line >> kind) || kind[0] == '#') continue;
    LayerShape layer;
    const bool read = kind == "conv" ? ReadConvolution(&line, &layer) : kind == "linear" && ReadLinear(&line, &layer);
    if (!read) {
      std::fprintf(stderr, "%s:%d: expected a layer, got '%s'\n", path.c_str(), number, text.c_str());
      return {};
    }
    layers.push_back(layer);
  }
  if (layers.empty()) std::fprintf(stderr, "%s: no layers; does the file exist?\n", path.c_str());
  return layers;
}

}  // namespace gossamer
