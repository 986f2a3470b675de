// Fully connected at batch 1: a sparse matrix times one vector. There are no pixels to fill registers with, so rows do:
// as many rows as a register has lanes go together, each lane gathering its own inputs.
#ifndef GOSSAMER_KERNELS_FULLY_CONNECTED_H_
#define GOSSAMER_KERNELS_FULLY_CONNECTED_H_

#include <cstdint>
#include <vector>

#include "format/sparse_weight.h"
#include "format/status.h"
#include "kernels/epilogue.h"

namespace gossamer {

// Rows that are computed together, in `lanes` lanes.
struct RowBundle {
  size_t entry;    // of the bundle's weights and columns
  uint32_t whole;  // steps in which every lane has a nonzero
  uint32_t steps;  // nonzeros of the longest row
  size_t count;    // of the bundle's numbers of nonzeros
  size_t row;      // in `rows`; -1 there for a lane without a row
};

// The part of the product that reads one range of columns: 16 bits address 65,536 of them.
struct ColumnRange {
  int64_t first_column;
  std::vector<std::vector<RowBundle>> bundles;  // of each slice
  std::vector<float> weights;                   // [step][lane]
  std::vector<uint16_t> columns;                // [step][lane], from first_column
  std::vector<int32_t> counts;                  // [lane] of each bundle: nonzeros
};

struct FullyConnectedPlan {
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t lanes = 0;
  Epilogue epilogue;
  std::vector<float> bias;
  std::vector<int32_t> rows;
  std::vector<ColumnRange> ranges;
  int64_t slices = 1;

  int64_t items() const { return slices; }
};

// `weight` is [outputs, inputs]; `bias` holds one float an output or is null.
Status MakeFullyConnectedPlan(const SparseWeight& weight, const float* bias, const Epilogue& epilogue, int64_t slices,
                              FullyConnectedPlan* plan);

// Computes the outputs of slices [first, last). `residual` holds one float an output, added before the activation; it may
// be null or the output itself.
void RunFullyConnected(const FullyConnectedPlan& plan, const float* input, const float* residual, float* output,
                       int64_t first, int64_t last);

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_FULLY_CONNECTED_H_
