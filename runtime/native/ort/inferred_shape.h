// Shapes as ONNX Runtime's shape inference hands them to an op and takes them back.
#ifndef GOSSAMER_ORT_INFERRED_SHAPE_H_
#define GOSSAMER_ORT_INFERRED_SHAPE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "ort/op.h"

namespace gossamer {

// Sets the shape of output 0. An axis of which nothing is known comes in as -1, and ONNX Runtime would take -1 back as a
// size: it would fold Shape to it and slice by it. Its interface has numbers and names only, so the axis gets a name that
// no other axis has.
inline void SetOutputShape(Ort::ShapeInferContext& context, const InferredShape& shape) {
  static std::atomic<uint64_t> unknown{0};
  std::vector<std::string> names;
  names.reserve(shape.size());  // what is set points at them
  InferredShape named;
  for (const auto& size : shape) {
    if (!size.IsInt() || size.AsInt() >= 0) {
      named.push_back(size);
      continue;
    }
    names.push_back("gossamer.unknown." + std::to_string(unknown.fetch_add(1, std::memory_order_relaxed)));
    named.emplace_back(names.back().c_str());
  }
  Ort::ThrowOnError(context.SetOutputShape(0, named));
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_INFERRED_SHAPE_H_
