// The constant inputs of a sparse op: the packed weight and the bias.
#ifndef GOSSAMER_ORT_CONSTANTS_H_
#define GOSSAMER_ORT_CONSTANTS_H_

#include <string>
#include <utility>
#include <vector>

#include "format/coded_weight.h"
#include "format/sparse_weight.h"
#include "ort/op.h"

namespace gossamer {

// The bytes of a packed weight.
inline Ort::ConstValue RequirePacked(const Ort::ConstKernelInfo& info, size_t index, size_t* size) {
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(index, &constant);
  Require(constant != 0 && static_cast<const OrtValue*>(value) != nullptr, "the packed weight must be a constant");
  const auto type = value.GetTensorTypeAndShapeInfo();
  Require(type.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "the packed weight must be of type uint8");
  *size = type.GetElementCount();
  return value;
}

template <class Value>
SparseMatrix<Value> ReadWeight(const Ort::ConstKernelInfo& info, size_t index, int64_t threads) {
  size_t size = 0;
  const Ort::ConstValue value = RequirePacked(info, index, &size);
  SparseMatrix<Value> weight;
  Require(DecodeSparseWeight(value.GetTensorData<uint8_t>(), size, &weight, threads));
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

// A weight, and the bias that it holds itself, if it does.
inline SparseWeight ReadWeight(const Ort::ConstKernelInfo& info, size_t index, int64_t threads, std::vector<float>* bias) {
  size_t size = 0;
  const Ort::ConstValue value = RequirePacked(info, index, &size);
  SparseWeight weight;
  Require(DecodeWeightAndBias(value.GetTensorData<uint8_t>(), size, threads, &weight, bias));
  return weight;
}

// The bias that a weight of so many rows holds, or else that which is given beside it.
inline std::vector<float> ReadBias(const Ort::ConstKernelInfo& info, size_t index, int64_t channels, std::vector<float> held) {
  if (held.empty()) return ReadBias<float>(info, index, channels);
  const bool is_given = info.GetInputCount() > index && !info.GetInputName(index).empty();
  Require(!is_given, "the packed weight holds a bias, and another one is given");
  return held;
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_CONSTANTS_H_
