// Attributes of nodes. Whoever wrote the model may have left any of them out.
#ifndef GOSSAMER_ORT_ATTRIBUTES_H_
#define GOSSAMER_ORT_ATTRIBUTES_H_

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/convolution_plan.h"
#include "kernels/machine.h"
#include "ort/op.h"

namespace gossamer {

template <class Source>
int64_t IntegerOr(const Source& source, const char* name, int64_t otherwise);
template <class Source>
std::vector<int64_t> IntegersOr(const Source& source, const char* name, std::vector<int64_t> otherwise);

// Calls read(); null if it finds no such attribute.
template <class Read>
auto Found(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Ort::Exception&) {
    return std::nullopt;
  }
}

// What read() finds; `otherwise` if there is no attribute of this name. One of another type is not one that was left out.
template <class Read>
auto Given(const Ort::ConstKernelInfo& info, const char* name, decltype(std::declval<Read>()()) otherwise,
           const Read& read) -> decltype(read()) {
  if (auto value = Found(read)) return *value;
  const bool given = Found([&] { return info.GetAttribute<int64_t>(name); }) ||
                     Found([&] { return info.GetAttribute<float>(name); }) ||
                     Found([&] { return info.GetAttribute<std::string>(name); }) ||
                     Found([&] { return info.GetAttributes<int64_t>(name); }) ||
                     Found([&] { return info.GetAttributes<float>(name); });
  if (given) Fail(std::string("the attribute ") + name + " is of another type than expected");
  return otherwise;
}

template <>
inline int64_t IntegerOr(const Ort::ConstKernelInfo& info, const char* name, int64_t otherwise) {
  return Given(info, name, otherwise, [&] { return info.GetAttribute<int64_t>(name); });
}
template <>
inline std::vector<int64_t> IntegersOr(const Ort::ConstKernelInfo& info, const char* name,
                                       std::vector<int64_t> otherwise) {
  return Given(info, name, std::move(otherwise), [&] { return info.GetAttributes<int64_t>(name); });
}
template <>
inline int64_t IntegerOr(const Ort::ShapeInferContext& context, const char* name, int64_t otherwise) {
  try {
    return const_cast<Ort::ShapeInferContext&>(context).GetAttrInt(name);
  } catch (const Ort::Exception&) {
    return otherwise;
  }
}
template <>
inline std::vector<int64_t> IntegersOr(const Ort::ShapeInferContext& context, const char* name,
                                       std::vector<int64_t> otherwise) {
  try {
    return const_cast<Ort::ShapeInferContext&>(context).GetAttrInts(name);
  } catch (const Ort::Exception&) {
    return otherwise;
  }
}

inline float FloatOr(const Ort::ConstKernelInfo& info, const char* name, float otherwise) {
  return Given(info, name, otherwise, [&] { return info.GetAttribute<float>(name); });
}

inline std::string StringOr(const Ort::ConstKernelInfo& info, const char* name, const char* otherwise) {
  return Given(info, name, otherwise, [&] { return info.GetAttribute<std::string>(name); });
}

// Attributes of ONNX's Conv and MaxPool that these ops do not have: a file in which they ask for something means another
// op than the one that would run.
inline void RequireExplicitPadding(const Ort::ConstKernelInfo& info) {
  Require(StringOr(info, "auto_pad", "NOTSET") == "NOTSET", "auto_pad is not known here: the numbers belong into pads");
  Require(IntegerOr(info, "ceil_mode", int64_t{0}) == 0, "ceil_mode is not known here: the numbers belong into pads");
}

// activation: none, relu, clip (with lower and upper), hardswish, silu, gelu, leakyrelu (with slope)
inline Epilogue ReadEpilogue(const Ort::ConstKernelInfo& info) {
  const std::string name = StringOr(info, "activation", "none");
  if (name == "none") return Epilogue();
  if (name == "relu") return Epilogue::Of(Activation::kRelu);
  if (name == "hardswish") return Epilogue::Of(Activation::kHardSwish);
  if (name == "silu") return Epilogue::Of(Activation::kSilu);
  if (name == "gelu") return Epilogue::Of(Activation::kGelu);
  if (name == "clip") {
    const Epilogue epilogue;
    const float lower = FloatOr(info, "lower", epilogue.lower);
    const float upper = FloatOr(info, "upper", epilogue.upper);
    Require(!(std::isnan(lower) || std::isnan(upper)), "clip: lower or upper is not a number");
    return Epilogue::Clip(lower, upper);
  }
  if (name == "leakyrelu") {
    const float slope = FloatOr(info, "slope", 0.01f);
    Require(std::isfinite(slope), "leakyrelu: slope is not a finite number");
    return Epilogue::LeakyRelu(slope);
  }
  Fail("unknown activation '" + name + "'; known: none, relu, clip, hardswish, silu, gelu, leakyrelu");
}

// arithmetic: float32; float16 where the processor has its instructions, else float32; or float16_rounded, which computes the same
// by any processor, slowly. Either is for layers where HalvesPay.
inline Arithmetic ReadArithmetic(const Ort::ConstKernelInfo& info) {
  const std::string name = StringOr(info, "arithmetic", "float32");
  if (name == "float32") return Arithmetic::kFloat;
  if (name == "float16") return HasHalfProducts() ? Arithmetic::kHalf : Arithmetic::kFloat;
  if (name == "float16_rounded") return Arithmetic::kRoundedHalf;
  Fail("unknown arithmetic '" + name + "'; known: float32, float16, float16_rounded");
}

// Kernel, strides, dilations, pads and group as in ONNX's Conv for images (two axes) or sequences (one), and
// output_channels. input_channels stays 0. The length of kernel_shape tells the number of axes; two if it is left out.
struct ConvolutionAttributes {
  ConvolutionShape shape;
  size_t axes;
};

template <class Source>
ConvolutionAttributes ReadConvolution(const Source& source) {
  const std::vector<int64_t> kernel = IntegersOr(source, "kernel_shape", {1, 1});
  const size_t axes = kernel.size();
  Require(axes == 1 || axes == 2, "kernel_shape needs two numbers for images, one for sequences");
  const std::vector<int64_t> strides = IntegersOr(source, "strides", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> dilations = IntegersOr(source, "dilations", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> pads = IntegersOr(source, "pads", std::vector<int64_t>(2 * axes, 0));
  Require(strides.size() == axes && dilations.size() == axes && pads.size() == 2 * axes,
          "strides and dilations need one number for each of kernel_shape, pads two");
  ConvolutionShape shape;
  shape.output_channels = IntegerOr(source, "output_channels", int64_t{0});
  shape.groups = IntegerOr(source, "group", int64_t{1});
  shape.kernel_width = kernel[axes - 1];
  shape.stride_width = strides[axes - 1];
  shape.dilation_width = dilations[axes - 1];
  shape.pad_left = pads[axes - 1];
  shape.pad_right = pads[2 * axes - 1];
  if (axes == 2) {
    shape.kernel_height = kernel[0];
    shape.stride_height = strides[0];
    shape.dilation_height = dilations[0];
    shape.pad_top = pads[0];
    shape.pad_bottom = pads[2];
  }
  return {shape, axes};
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_ATTRIBUTES_H_
