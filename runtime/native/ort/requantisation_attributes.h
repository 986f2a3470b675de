// How a node of a quantised op says what becomes of its sums.
#ifndef GOSSAMER_ORT_REQUANTISATION_ATTRIBUTES_H_
#define GOSSAMER_ORT_REQUANTISATION_ATTRIBUTES_H_

#include <array>
#include <string>

#include "kernels/requantisation.h"
#include "ort/attributes.h"
#include "ort/constants.h"
#include "ort/op.h"

namespace gossamer {

// Values, packed weight, scales, bias, residual and the table of an activation function.
inline constexpr std::array<Input, 6> kRequantisedInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                             {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, false},
                                                             {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false},
                                                             {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, true},
                                                             {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, true},
                                                             {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, true}}};
inline constexpr int kRequantisedResidual = 4;

inline int32_t ReadByte(const Ort::ConstKernelInfo& info, const char* name, int64_t otherwise) {
  const int64_t value = IntegerOr(info, name, otherwise);
  if (value < 0 || value > 255) Fail(std::string("the attribute ") + name + " must be within 0 and 255");
  return static_cast<int32_t>(value);
}

// An attribute that must be there.
inline float RequireScale(const Ort::ConstKernelInfo& info, const char* name) {
  const float scale = FloatOr(info, name, 0.0f);
  if (!IsScale(scale)) Fail(std::string("the attribute ") + name + " must be within 2^-126 and 2^64");
  return scale;
}

// Scales are input number `scales`, a table number `table`.
inline Requantisation ReadRequantisation(const Ort::ConstKernelInfo& info, size_t scales, size_t table,
                                         int64_t output_channels) {
  Requantisation to;
  to.scale = ReadConstant<float>(info, scales, output_channels, "scales");
  to.zero_point = ReadByte(info, "output_zero_point", 0);
  to.lower = ReadByte(info, "lower", 0);
  to.upper = ReadByte(info, "upper", 255);
  to.residual_scale = FloatOr(info, "residual_scale", 0.0f);
  to.residual_zero_point = ReadByte(info, "residual_zero_point", 0);
  to.sum_step = FloatOr(info, "sum_step", 0.0f);
  to.sum_lower = FloatOr(info, "sum_lower", to.sum_lower);
  to.sum_upper = FloatOr(info, "sum_upper", to.sum_upper);
  to.table = ReadConstant<uint8_t>(info, table, 256, "table of the activation function");
  Require(CheckRequantisation(to, output_channels));
  return to;
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_REQUANTISATION_ATTRIBUTES_H_
