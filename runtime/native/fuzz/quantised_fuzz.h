// What a fuzzer does with a weight of int8.
#ifndef GOSSAMER_FUZZ_QUANTISED_FUZZ_H_
#define GOSSAMER_FUZZ_QUANTISED_FUZZ_H_

#include "format/sparse_weight.h"
#include "fuzz/recipe.h"

namespace gossamer {

void FuzzQuantised(const SparseByteWeight& weight, Recipe* recipe);

}  // namespace gossamer

#endif  // GOSSAMER_FUZZ_QUANTISED_FUZZ_H_
