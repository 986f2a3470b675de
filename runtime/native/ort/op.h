// What all custom ops share: nothing is thrown across ONNX Runtime's C interface, every failure becomes a status.
#ifndef GOSSAMER_ORT_OP_H_
#define GOSSAMER_ORT_OP_H_

#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define ORT_API_MANUAL_INIT
#include "onnxruntime_cxx_api.h"
#undef ORT_API_MANUAL_INIT

#include "format/status.h"

namespace gossamer {

// Runs `body` and turns what it throws into a status; null is success.
template <class Body>
OrtStatusPtr Guarded(const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Ort::Exception& problem) {
    return Ort::GetApi().CreateStatus(problem.GetOrtErrorCode(), problem.what());
  } catch (const std::exception& problem) {
    return Ort::GetApi().CreateStatus(ORT_INVALID_ARGUMENT, problem.what());
  } catch (...) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, "gossamer: unknown failure");
  }
}

// Throws, to be caught by Guarded.
[[noreturn]] inline void Fail(const std::string& problem) { throw std::invalid_argument("gossamer: " + problem); }
inline void Require(bool condition, const char* problem) {
  if (!condition) Fail(problem);
}
inline void Require(const Status& status) {
  if (!status.ok()) Fail(status.problem());
}

// Dimensions as far as shape inference knows them.
using InferredShape = Ort::ShapeInferContext::Shape;

// An op of the domain. Derive as  struct Name : Op<Name, Kernel>  with
//   static constexpr const char* kName;
//   static constexpr std::array<Input, n> kInputs;
//   static constexpr int kMayReuseInput;  // an input whose memory the output may take, or -1
//   static constexpr ONNXTensorElementDataType kOutputType;  // if it is not float
//   static void Infer(Ort::ShapeInferContext&);
// Kernel is made from (Ort::ConstKernelInfo, threads) and has Compute(Ort::KernelContext&).
struct Input {
  ONNXTensorElementDataType type;
  bool optional;
};

template <class Kernel>
struct GuardedKernel {
  Kernel kernel;
  GuardedKernel(const Ort::ConstKernelInfo& info, int64_t threads) : kernel(info, threads) {}
  OrtStatusPtr ComputeV2(OrtKernelContext* context) noexcept {
    return Guarded([&] {
      Ort::KernelContext wrapped(context);
      kernel.Compute(wrapped);
    });
  }
};

template <class Self, class Kernel>
struct Op : Ort::CustomOpBase<Self, GuardedKernel<Kernel>, true> {
  static constexpr ONNXTensorElementDataType kOutputType = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

  explicit Op(int64_t threads) : threads_(threads) {
    this->InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) noexcept -> OrtStatusPtr {
      return Guarded([&] {
        Ort::ShapeInferContext wrapped(&Ort::GetApi(), context);
        Self::Infer(wrapped);
      });
    };
    if constexpr (Self::kMayReuseInput >= 0) {
      this->GetMayInplace = [](int** input, int** output) noexcept -> size_t {
        *input = new (std::nothrow) int(Self::kMayReuseInput);
        *output = new (std::nothrow) int(0);
        if (*input != nullptr && *output != nullptr) return 1;
        delete *input;
        delete *output;
        return 0;
      };
      this->ReleaseMayInplace = [](int* input, int* output) noexcept {
        delete input;
        delete output;
      };
    }
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept {
    return Guarded([&] { *kernel = new GuardedKernel<Kernel>(Ort::ConstKernelInfo(info), threads_); });
  }

  const char* GetName() const { return Self::kName; }
  const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return Self::kInputs.size(); }
  ONNXTensorElementDataType GetInputType(size_t index) const { return Self::kInputs[index].type; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const {
    return Self::kInputs[index].optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return Self::kOutputType; }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(size_t) const { return INPUT_OUTPUT_REQUIRED; }

 private:
  int64_t threads_;
};

// Types of elements, as ONNX Runtime and messages name them.
template <class Element>
struct ElementType;
template <>
struct ElementType<float> {
  static constexpr ONNXTensorElementDataType kType = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  static constexpr const char* kName = "float";
};
template <>
struct ElementType<uint8_t> {
  static constexpr ONNXTensorElementDataType kType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static constexpr const char* kName = "uint8";
};
template <>
struct ElementType<int32_t> {
  static constexpr ONNXTensorElementDataType kType = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  static constexpr const char* kName = "int32";
};

// A tensor that a kernel was handed.
template <class Element>
struct TensorInput {
  const Element* data = nullptr;
  std::vector<int64_t> shape;
};
using FloatInput = TensorInput<float>;

template <class Element>
std::optional<TensorInput<Element>> GetTensorInput(const Ort::KernelContext& context, size_t index) {
  if (index >= context.GetInputCount()) return std::nullopt;
  const Ort::ConstValue value = context.GetInput(index);
  if (static_cast<const OrtValue*>(value) == nullptr) return std::nullopt;
  const auto info = value.GetTensorTypeAndShapeInfo();
  if (info.GetElementType() != ElementType<Element>::kType) {
    Fail(std::string("an input is not of type ") + ElementType<Element>::kName);
  }
  return TensorInput<Element>{value.GetTensorData<Element>(), info.GetShape()};
}
inline std::optional<FloatInput> GetFloatInput(const Ort::KernelContext& context, size_t index) {
  return GetTensorInput<float>(context, index);
}

// The static shape of an input; -1 for what is not known. Empty if not even the rank is.
inline std::vector<int64_t> KnownShape(const Ort::ConstKernelInfo& info, size_t index) {
  const Ort::TypeInfo type = info.GetInputTypeInfo(index);
  if (type.GetONNXType() != ONNX_TYPE_TENSOR) return {};
  return type.GetTensorTypeAndShapeInfo().GetShape();
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_OP_H_
