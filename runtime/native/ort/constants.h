// The constant inputs of a sparse op: the packed weight and the bias.
#ifndef GOSSAMER_ORT_CONSTANTS_H_
#define GOSSAMER_ORT_CONSTANTS_H_

#include <string>
#include <vector>

#include "format/sparse_weight.h"
#include "ort/op.h"

namespace gossamer {

template <class Value>
SparseMatrix<Value> ReadWeight(const Ort::ConstKernelInfo& info, size_t index, int64_t threads) {
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  Require(constant != 0 && static_cast<const OrtValue*>(value) != nullptr, "the packed weight must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  Require(type.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "the packed weight must be of type uint8");
  SparseMatrix<Value> weight;
  Require(DecodeSparseWeight(value.GetTensorData<uint8_t>(), type.GetElementCount(), &weight, threads));
  return weight;
}

// The numbers of a constant input, `count` of them; none if it was left out. `name` is what messages call it.
template <class Element>
std::vector<Element> ReadConstant(const Ort::ConstKernelInfo& info, size_t index, int64_t count, const char* name) {
  if (info.GetInputCount() <= index || info.GetInputName(index).empty()) return {};
  const std::string the = std::string("the ") + name;
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  if (constant == 0 || static_cast<const OrtValue*>(value) == nullptr) Fail(the + " must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  if (type.GetElementType() != ElementType<Element>::kType) Fail(the + " must be of type " + ElementType<Element>::kName);
  if (type.GetElementCount() != static_cast<size_t>(count)) {
    Fail(the + " has " + std::to_string(type.GetElementCount()) + " numbers, expected " + std::to_string(count));
  }
  const Element* const data = value.GetTensorData<Element>();
  return std::vector<Element>(data, data + count);
}

// One number for each output channel, zeros if there is no bias.
template <class Element>
std::vector<Element> ReadBias(const Ort::ConstKernelInfo& info, size_t index, int64_t channels) {
  std::vector<Element> bias = ReadConstant<Element>(info, index, channels, "bias");
  bias.resize(static_cast<size_t>(channels));
  return bias;
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_CONSTANTS_H_
