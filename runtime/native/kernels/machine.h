// What packing needs to know of the processor.
#ifndef GOSSAMER_KERNELS_MACHINE_H_
#define GOSSAMER_KERNELS_MACHINE_H_

#include <cstdint>

namespace gossamer {

// Bytes of the first-level data cache; 32 KiB where the system does not say.
int64_t FirstLevelCacheBytes();

// Instructions that multiply four pairs of bytes at once and add the products to 32 bits, which Highway's targets do not
// tell apart.
enum class QuadProducts { kAvx512Vnni, kAvxVnni, kArmDotProduct };
bool HasQuadProducts(QuadProducts kind);

// Instructions that multiply and add in fp16, ARMv8.2's: Cortex-A55, A75, A76 and later.
bool HasHalfProducts();

// Whether a load that crosses two cache lines costs little where multiply-adds and not loads are what takes the time: Intel's
// processors. On AMD's (Zen 5) loads are.
bool LoadsAcrossLinesWell();

// What the kernels of one instruction set can hold in registers.
struct KernelTraits {
  int64_t vector_lanes;  // floats a register
  int64_t accumulators;  // registers that hold sums, over all rows of a group
  int64_t row_vectors;   // registers of one row at most
  int64_t shift_lanes;   // floats of one row at most in the kernel that shifts columns in registers; 0: there is none
  // Whether four neighbouring rows are summed together, however many nonzeros each has, since a lane of the output is made of
  // them (quantised_quad-inl.h).
  bool sums_quads = false;

  constexpr int64_t row_lanes() const { return vector_lanes * row_vectors; }
  // A call stores whole vectors and computes a multiple of 4 pixels, so all calls but the last of a tile cover a
  // multiple of this.
  constexpr int64_t span_quantum() const { return vector_lanes < 4 ? 4 : vector_lanes; }
  // Pixels of one row at most in the kernel of wide rows, which sums 4 lanes more.
  constexpr int64_t wide_lanes() const {
    const int64_t lanes = (accumulators * vector_lanes - 4) / span_quantum() * span_quantum();
    return lanes < 112 ? lanes : 112;
  }
  // Rows that are computed together when one row takes `lanes` floats: 4 of up to 64 pixels or 2 of 112 on AVX-512.
  constexpr int64_t RowsPerGroup(int64_t lanes) const {
    const int64_t vectors = (lanes + vector_lanes - 1) / vector_lanes;
    return 4 * vectors <= accumulators ? 4 : 2 * vectors <= accumulators ? 2 : 1;
  }
};

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_MACHINE_H_
