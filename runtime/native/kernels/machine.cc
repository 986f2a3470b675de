#include "kernels/machine.h"

#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace gossamer {

int64_t FirstLevelCacheBytes() {
#ifdef _SC_LEVEL1_DCACHE_SIZE
  if (const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE); bytes > 0) return bytes;
#endif
  return int64_t{32} << 10;
}

// Whether the system saves their registers is Highway's to know: it has chosen AVX-512 or AVX2 before anyone asks.
bool HasQuadProducts(QuadProducts kind) {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (kind == QuadProducts::kAvx512Vnni) return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c >> 11 & 1) != 0;
  if (kind == QuadProducts::kAvxVnni) return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
#elif defined(__aarch64__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  if (kind == QuadProducts::kArmDotProduct) return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#endif
  (void)kind;
  return false;
}

bool HasHalfProducts() {
#if defined(__aarch64__)
  constexpr unsigned long kHalves = 1ul << 10;  // HWCAP_ASIMDHP
  return (getauxval(AT_HWCAP) & kHalves) != 0;
#else
  return false;
#endif
}

bool LoadsAcrossLinesWell() {
#if defined(__x86_64__)
  constexpr unsigned kGenuineIntel[3] = {0x756e6547, 0x49656e69, 0x6c65746e};
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == kGenuineIntel[0] && d == kGenuineIntel[1] && c == kGenuineIntel[2];
#else
  return false;
#endif
}

}  // namespace gossamer
