// What ops that multiply tokens with a matrix have in common.
#ifndef GOSSAMER_ORT_MATMUL_OP_H_
#define GOSSAMER_ORT_MATMUL_OP_H_

#include <algorithm>
#include <string>
#include <vector>

#include "format/sparse_weight.h"
#include "ort/attributes.h"
#include "ort/inferred_shape.h"

namespace gossamer {

template <class Value>
void RequireMatrix(const std::string& op, const Ort::ConstKernelInfo& info, const SparseMatrix<Value>& weight) {
  if (weight.shape.size() != 2) Fail(op + ": the weight's shape is not [output_features, features]");
  // Shape inference believes the attribute, for the weight's bytes are not read there.
  if (IntegerOr(info, "output_features", weight.rows) != weight.rows) {
    Fail(op + ": output_features is not the number of the weight's rows");
  }
}

// The output's shape for an input of this one.
template <class Value>
std::vector<int64_t> MatMulShape(const std::string& op, std::vector<int64_t> shape, const SparseMatrix<Value>& weight) {
  if (shape.empty()) Fail(op + ": expected an input of at least one dimension");
  if (shape.back() != weight.columns) {
    Fail(op + ": the weight takes " + std::to_string(weight.columns) + " features, the input has " +
         std::to_string(shape.back()));
  }
  shape.back() = weight.rows;
  return shape;
}

// The product of all dimensions but the last. Where one is 0 the others cost no memory, and could overflow.
inline int64_t TokensOf(const std::vector<int64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t tokens = 1;
  for (size_t axis = 0; axis + 1 < shape.size(); ++axis) tokens *= shape[axis];
  return tokens;
}

inline void InferMatMul(const std::string& op, Ort::ShapeInferContext& context) {
  const InferredShape& input = context.GetInputShape(0);
  const int64_t outputs = IntegerOr(static_cast<const Ort::ShapeInferContext&>(context), "output_features", int64_t{0});
  if (input.empty() || outputs < 1) return;
  if (static_cast<uint64_t>(outputs) > kMaximumRows) Fail(op + ": output_features must be at most 2^22");
  InferredShape output = input;
  output.back() = outputs;
  SetOutputShape(context, output);
}

}  // namespace gossamer

#endif  // GOSSAMER_ORT_MATMUL_OP_H_
