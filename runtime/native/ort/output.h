// Where an op's output goes.
#ifndef GOSSAMER_ORT_OUTPUT_H_
#define GOSSAMER_ORT_OUTPUT_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "kernels/large_pages.h"
#include "ort/op.h"

namespace gossamer {

// The memory that ONNX Runtime gives an op, on large pages where it is worth it. With a static shape the place changes
// once, after the first inference, when ONNX Runtime has planned all outputs into one block.
class OutputMemory {
 public:
  // Output 0. Several threads may run one session at once.
  template <class Element = float>
  Element* Get(Ort::KernelContext& context, const std::vector<int64_t>& shape) {
    Ort::UnownedValue output = context.GetOutput(0, shape);
    Element* const data = output.GetTensorMutableData<Element>();
    const size_t bytes = output.GetTensorTypeAndShapeInfo().GetElementCount() * sizeof(Element);
    if (bytes >= kLongBytes && data != last_.load(std::memory_order_relaxed) &&
        places_.fetch_add(1, std::memory_order_relaxed) < kMostPlaces) {
      last_.store(data, std::memory_order_relaxed);
      MakePagesLarge(data, bytes);
    }
    return data;
  }

 private:
  static constexpr size_t kLongBytes = size_t{256} << 10;
  // With dynamic shapes the place may change in every inference; the system is asked about the first ones only.
  static constexpr int kMostPlaces = 4;
  std::atomic<const void*> last_{nullptr};
  std::atomic<int> places_{0};
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_OUTPUT_H_
