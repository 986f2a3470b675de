#include "kernels/machine.h"

#include <unistd.h>

namespace gossamer {

int64_t FirstLevelCacheBytes() {
#ifdef _SC_LEVEL1_DCACHE_SIZE
  if (const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE); bytes > 0) return bytes;
#endif
  return int64_t{32} << 10;
}

}  // namespace gossamer
