// Conversion between float and the 16-bit floating point of IEEE 754, without relying on the processor.
#ifndef GOSSAMER_FORMAT_HALF_H_
#define GOSSAMER_FORMAT_HALF_H_

#include <cstdint>
#include <cstring>

namespace gossamer {

struct Half {
  uint16_t bits;
};

inline float FloatFromHalf(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t fraction = half & 1023u;
  uint32_t bits;
  if (exponent == 31) {
    bits = 0x7F800000u | fraction << 13;
  } else if (exponent != 0) {
    bits = (exponent + 127 - 15) << 23 | fraction << 13;
  } else {
    // Subnormal: fraction * 2^-24, exact in a float.
    const float value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &value, sizeof(bits));
  }
  bits |= sign;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// Rounds to nearest, ties to even; beyond the range of the type the result is infinite.
inline uint16_t HalfFromFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7FFFFFFFu;
  if (bits > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (bits >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (bits < 0x38800000u) {
    // Adding 0.5 puts the unit of the last place of the sum at 2^-24, so the addition itself rounds to even.
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    return static_cast<uint16_t>(sign | (bits - 0x3F000000u));
  }
  const uint32_t odd = (bits >> 13) & 1u;
  bits += 0x0FFFu + odd;
  return static_cast<uint16_t>(sign | ((bits >> 13) - ((127 - 15) << 10)));
}

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_HALF_H_
