// Rows of few pixels, which ARM's kernels sum in a way of their own (kernels/short_row-inl.h).
#include <gtest/gtest.h>

#include "tests/panels.h"
#include "tests/quantised_case.h"

namespace gossamer {
namespace {

// 1 to 8 pixels, 12, and 72, of which the last row of 8 is left over. With and without a shift of columns.
constexpr int64_t kSizes[][2] = {{1, 1}, {2, 2}, {1, 4}, {2, 3}, {1, 7}, {2, 4}, {4, 2}, {3, 4}, {9, 8}};

TEST(ShortRow, BytesOfAnyNumberOfSteps) {
  for (const auto& size : kSizes) {
    for (const int64_t kernel : {1, 3}) {
      // One quad a position of the kernel, and up to seven; rows of one group and rows by themselves.
      for (int64_t inputs = 4; inputs <= 28; inputs += 4) {
        for (const int64_t outputs : {1, 3, 4, 11}) {
          QuantisedCase c;
          c.shape = Square(inputs, outputs, kernel, 1);
          c.height = size[0];
          c.width = size[1];
          c.density = 1.0;
          CheckQuantised(c, static_cast<unsigned>(inputs + outputs));
        }
      }
    }
  }
}

TEST(ShortRow, BytesInSeveralBlocks) {
  for (const auto& size : kSizes) {
    for (const int64_t kernel : {1, 3}) {
      for (const double density : {0.05, 0.2, 0.9}) {
        QuantisedCase c;
        c.shape = Square(93, 22, kernel, 1);
        c.height = size[0];
        c.width = size[1];
        c.density = density;
        c.block_bytes = 1;
        c.residual = true;
        CheckQuantised(c, 17);
      }
    }
  }
}

// A block as long as offsets of 16 bits let it be.
TEST(ShortRow, BytesAtTheEndOfALongBlock) {
  QuantisedCase c;
  c.shape = Square(4 * 8191, 5, 1, 1);
  c.height = 2;
  c.width = 4;
  c.density = 0.01;
  c.block_bytes = 1 << 20;
  CheckQuantised(c, 19);
}

}  // namespace
}  // namespace gossamer
