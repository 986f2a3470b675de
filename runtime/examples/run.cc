// Runs a model with gossamer's ops from C++: the library is registered, its threads are set, the first numbers of every
// output are printed. Inputs are made up; axes that the model leaves open are 1.
//
//   run MODEL.onnx LIBRARY [THREADS]
//
// LIBRARY is what `python -c "import gossamer_runtime; print(gossamer_runtime.library_path())"` prints. README.md beside
// this folder says how to build it. Headers of ONNX Runtime 1.21 do, with the library of 1.24 or newer: the headers ask it
// for their own version of the interface.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr size_t kShown = 8;
constexpr int kUsersMistake = 2;

// The ops ask for the number of threads when they are registered: it is set before.
Ort::SessionOptions OptionsWithGossamer(const char* library, int threads) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  options.AddConfigEntry("gossamer.threads", std::to_string(threads).c_str());
  options.RegisterCustomOpsLibrary(library);
  return options;
}

void RequireFloats(const Ort::ConstTensorTypeAndShapeInfo& info, const std::string& name) {
  if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
    throw std::runtime_error(name + " is no tensor of 32-bit floats; this example knows no other");
  }
}

// Steps of a quarter from -0.75 to 0.75, again and again: exact in any language.
std::vector<float> MadeUpNumbers(size_t count) {
  std::vector<float> numbers(count);
  for (size_t i = 0; i < count; ++i) numbers[i] = (static_cast<float>(i % 7) - 3.0f) / 4.0f;
  return numbers;
}

// An input and the numbers that it is made of, which ONNX Runtime does not copy.
struct Input {
  std::string name;
  std::vector<float> numbers;
  Ort::Value value{nullptr};
};

Input MadeUpInput(const Ort::Session& session, size_t index, const Ort::MemoryInfo& memory) {
  Ort::AllocatorWithDefaultOptions allocator;
  Input input;
  input.name = session.GetInputNameAllocated(index, allocator).get();
  const Ort::TypeInfo type = session.GetInputTypeInfo(index);
  const Ort::ConstTensorTypeAndShapeInfo info = type.GetTensorTypeAndShapeInfo();
  RequireFloats(info, input.name);
  std::vector<int64_t> shape = info.GetShape();
  size_t count = 1;
  for (int64_t& axis : shape) {
    axis = axis < 0 ? 1 : axis;
    count *= static_cast<size_t>(axis);
  }
  input.numbers = MadeUpNumbers(count);
  input.value = Ort::Value::CreateTensor<float>(memory, input.numbers.data(), count, shape.data(), shape.size());
  return input;
}

void Print(const std::string& name, const Ort::Value& output) {
  const Ort::TensorTypeAndShapeInfo info = output.GetTensorTypeAndShapeInfo();
  RequireFloats(info.GetConst(), name);
  std::printf("%s:", name.c_str());
  const float* numbers = output.GetTensorData<float>();
  const size_t shown = std::min(kShown, info.GetElementCount());
  for (size_t i = 0; i < shown; ++i) std::printf(" %.9g", static_cast<double>(numbers[i]));
  std::printf("\n");
}

void Run(const char* model, const char* library, int threads) {
  const Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "run");
  Ort::Session session(env, model, OptionsWithGossamer(library, threads));

  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::IoBinding binding(session);
  std::vector<Input> inputs;
  for (size_t i = 0; i < session.GetInputCount(); ++i) {
    inputs.push_back(MadeUpInput(session, i, memory));
    binding.BindInput(inputs.back().name.c_str(), inputs.back().value);
  }
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<std::string> outputs;
  for (size_t i = 0; i < session.GetOutputCount(); ++i) {
    outputs.emplace_back(session.GetOutputNameAllocated(i, allocator).get());
    binding.BindOutput(outputs.back().c_str(), memory);
  }
  session.Run(Ort::RunOptions(), binding);
  const std::vector<Ort::Value> values = binding.GetOutputValues();
  for (size_t i = 0; i < values.size(); ++i) Print(outputs[i], values[i]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "run MODEL.onnx LIBRARY [THREADS]\n");
    return kUsersMistake;
  }
  try {
    Run(argv[1], argv[2], argc == 4 ? std::atoi(argv[3]) : 0);
  } catch (const std::exception& error) {  // Ort::Exception is one
    std::fprintf(stderr, "error: %s\n", error.what());
    return kUsersMistake;
  }
  return 0;
}
