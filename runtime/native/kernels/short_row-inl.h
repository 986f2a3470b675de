// Rows of up to 8 pixels on ARM, and 12 of a row by itself, where finding a pixel takes more than multiplying it.
//
// What bounds these loops in llvm-mca's model of neoverse-n1 (docs/kernels.md), and what is done about it:
//   places     one instruction took an offset out of four, and one made bytes of it. An `and` of the shifted offsets
//              with a mask does both. GCC makes two of it again if it knows the mask
//   the loop   its own instructions are as many as those of a pixel: two steps at once
//   waiting    each product waits for the one before it in the same sum. Where the order of products does not matter,
//              each entry of a step has a sum of its own, and these are added up behind the loop
#if defined(GOSSAMER_KERNELS_SHORT_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GOSSAMER_KERNELS_SHORT_ROW_INL_H_
#undef GOSSAMER_KERNELS_SHORT_ROW_INL_H_
#else
#define GOSSAMER_KERNELS_SHORT_ROW_INL_H_
#endif

#include <cstring>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"
#include "kernels/accumulator-inl.h"

#undef GOSSAMER_HAS_SHORT_ROWS
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_SCALAR
#define GOSSAMER_HAS_SHORT_ROWS 1
#else
#define GOSSAMER_HAS_SHORT_ROWS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Whether `kRows` rows are summed as this file does, of which a step has kEntries: two of a row by itself, four of four
// rows or of one whose columns are shifted. Floats of four pixels would wait for the product before them all the same.
template <class Row, size_t kEntries, size_t kRows>
constexpr bool IsShort() {
  using Product = typename Row::Product;
  if (!GOSSAMER_HAS_SHORT_ROWS || Product::kJoins) return false;
  if (!Product::kAnyOrder && (kRows != kEntries || Row::kVectors == 1)) return false;
  return kEntries == 4 ? Row::kVectors <= 2 : kEntries == 2 && Row::kVectors <= 3;
}

#if GOSSAMER_HAS_SHORT_ROWS
// Where entries find their pixels. Each register of a row has a place of its own to count from, so that one offset
// does for all of them.
template <class Lane, size_t kVectors>
struct Places {
  const uint8_t* from[kVectors];
  uint64_t mask;  // of an offset in bytes

  // The compiler is not to know that one follows the other, nor what the mask is.
  HWY_INLINE explicit Places(const Lane* input) : mask(0xffff * sizeof(Lane)) {
    GOSSAMER_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      from[i] = reinterpret_cast<const uint8_t*>(input + i * kLanes);
      asm("" : "+r"(from[i]));
    }
    asm("" : "+r"(mask));
  }

  // In bytes, of entry number kEntry of `offsets`, which are 16 bits each.
  template <size_t kEntry>
  HWY_INLINE uint64_t Offset(uint64_t offsets) const {
    static_assert(sizeof(Lane) == 4, "offsets are shifted by two bits");
    if constexpr (kEntry == 0) {
      return (offsets << 2) & mask;
    } else {
      return (offsets >> (16 * kEntry - 2)) & mask;
    }
  }

  HWY_INLINE const Lane* At(size_t vector, uint64_t offset) const {
    return reinterpret_cast<const Lane*>(from[vector] + offset);
  }
};

template <size_t kEntry, class Vector, class Row>
HWY_INLINE void MulAddShort(Vector weights, const Places<typename Row::Lane, Row::kVectors>& places, uint64_t offsets,
                            Row& sums) {
  using Product = typename Row::Product;
  static_assert(Row::kLaneCount % kLanes == 0, "there is no shorter vector");
  const typename Product::template Weight<kEntry> weight(weights);
  const uint64_t offset = places.template Offset<kEntry>(offsets);
  GOSSAMER_UNROLL
  for (size_t i = 0; i < Row::kVectors; ++i) {
    sums.full[i] = Product::MulAdd(typename Row::Tag(), weight, places.At(i, offset), sums.full[i]);
  }
}

// One step of the stream (see RowSlice), whose entry number e is added to sum number e.
template <class Row, size_t... kEntry>
HWY_INLINE const uint8_t* MulAddShortStep(const uint8_t* HWY_RESTRICT entry,
                                          const Places<typename Row::Lane, Row::kVectors>& places,
                                          Row (&sums)[sizeof...(kEntry)], std::index_sequence<kEntry...>) {
  constexpr size_t kEntries = sizeof...(kEntry);
  const typename Row::Tag d;
  const auto weights = hn::BitCast(d, hn::LoadDup128(hn::Repartition<uint8_t, typename Row::Tag>(), entry));
  std::conditional_t<kEntries == 2, uint32_t, uint64_t> offsets;
  static_assert(sizeof(offsets) == sizeof(uint16_t) * kEntries, "a step holds 2 or 4 entries");
  std::memcpy(&offsets, entry + sizeof(typename Row::Lane) * kEntries, sizeof(offsets));
  (MulAddShort<kEntry>(weights, places, offsets, sums[kEntry]), ...);
  return entry + (sizeof(typename Row::Lane) + sizeof(uint16_t)) * kEntries;
}

// `steps` steps. Two at once: the loop's own instructions are as many as those of two pixels.
template <size_t kEntries, class Row>
HWY_INLINE const uint8_t* MulAddShortSteps(const uint8_t* HWY_RESTRICT entry, uint32_t steps,
                                           const typename Row::Lane* HWY_RESTRICT input, Row (&sums)[kEntries]) {
  const Places<typename Row::Lane, Row::kVectors> places(input);
  const std::make_index_sequence<kEntries> entries;
  if (steps % 2 != 0) entry = MulAddShortStep(entry, places, sums, entries);
  for (steps /= 2; steps != 0; --steps) {
    entry = MulAddShortStep(entry, places, sums, entries);
    entry = MulAddShortStep(entry, places, sums, entries);
  }
  return entry;
}

// The same of fewer rows than a step has entries, of which number e is one of row e % kRows.
template <size_t kEntries, size_t kRows, class Row>
HWY_INLINE const uint8_t* MulAddInParts(const uint8_t* HWY_RESTRICT entry, uint32_t steps,
                                        const typename Row::Lane* HWY_RESTRICT input, Row (&sums)[kRows]) {
  Row parts[kEntries];
  GOSSAMER_UNROLL
  for (size_t r = 0; r < kRows; ++r) parts[r] = sums[r];
  GOSSAMER_UNROLL
  for (size_t e = kRows; e < kEntries; ++e) parts[e].Fill(0);
  entry = MulAddShortSteps<kEntries>(entry, steps, input, parts);
  GOSSAMER_UNROLL
  for (size_t r = 0; r < kRows; ++r) sums[r] = parts[r];
  GOSSAMER_UNROLL
  for (size_t e = kRows; e < kEntries; ++e) sums[e % kRows].Add(parts[e]);
  return entry;
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#endif  // GOSSAMER_KERNELS_SHORT_ROW_INL_H_
