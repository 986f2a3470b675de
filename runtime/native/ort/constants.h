// The constant inputs of a sparse op: the packed weight and the bias.
#ifndef GOSSAMER_ORT_CONSTANTS_H_
#define GOSSAMER_ORT_CONSTANTS_H_

#include <vector>

#include "format/sparse_weight.h"
#include "ort/op.h"

namespace gossamer {

inline SparseWeight ReadWeight(const Ort::ConstKernelInfo& info, size_t index) {
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  Require(constant != 0 && static_cast<const OrtValue*>(value) != nullptr, "the packed weight must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  Require(type.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "the packed weight must be of type uint8");
  SparseWeight weight;
  Require(DecodeSparseWeight(value.GetTensorData<uint8_t>(), type.GetElementCount(), &weight));
  return weight;
}

// `count` floats, zeros if there is no bias.
inline std::vector<float> ReadBias(const Ort::ConstKernelInfo& info, size_t index, int64_t count) {
  std::vector<float> bias(static_cast<size_t>(count), 0.0f);
  if (info.GetInputCount() <= index || info.GetInputName(index).empty()) return bias;
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  Require(constant != 0 && static_cast<const OrtValue*>(value) != nullptr, "the bias must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  Require(type.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "the bias must be of type float");
  Require(type.GetElementCount() == bias.size(), "the bias has not one number for each output channel");
  const float* data = value.GetTensorData<float>();
  bias.assign(data, data + count);
  return bias;
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_CONSTANTS_H_
