// Peak(X) -> Y [1]: multiply-adds a second that one thread reaches in registers, measured when the node runs. Benches set
// times of layers against it. X is any tensor of floats; it is not read, but keeps the node from being folded away.
#ifndef GOSSAMER_ORT_PEAK_OP_H_
#define GOSSAMER_ORT_PEAK_OP_H_

#include <array>

#include "ort/op.h"

namespace gossamer {

class PeakKernel {
 public:
  PeakKernel(const Ort::ConstKernelInfo&, int64_t) {}
  void Compute(Ort::KernelContext& context) const;
};

struct PeakOp : Op<PeakOp, PeakKernel> {
  using Op::Op;
  static constexpr const char* kName = "Peak";
  static constexpr std::array<Input, 1> kInputs = {{{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false}}};
  static constexpr int kMayReuseInput = -1;
  static void Infer(Ort::ShapeInferContext& context);
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PEAK_OP_H_
