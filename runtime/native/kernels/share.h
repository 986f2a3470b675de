// How items are dealt out: consecutive ones, as evenly as whole items allow.
#ifndef GOSSAMER_KERNELS_SHARE_H_
#define GOSSAMER_KERNELS_SHARE_H_

#include <cstdint>

namespace gossamer {

// What [first, last) are of.
struct Range {
  int64_t first;
  int64_t last;
};

// The items of one of `parts` parts.
inline Range ShareOf(int64_t items, int64_t parts, int64_t part) {
  return {items * part / parts, items * (part + 1) / parts};
}

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_SHARE_H_
