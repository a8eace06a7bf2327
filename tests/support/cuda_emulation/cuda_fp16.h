// SPDX-License-Identifier: Apache-2.0
#ifndef CUDA_EMULATION_CUDA_FP16_H_
#define CUDA_EMULATION_CUDA_FP16_H_

#include <cmath>
#include <cstdint>
#include <limits>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(fraction + (exponent ? 1024 : 0)), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? std::numeric_limits<float>::quiet_NaN() : INFINITY;
  return value.bits >> 15 ? -magnitude : magnitude;
}

// Rounds to the nearest number. Ties go to the even number, which is the default of `nearbyint`.
inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return {0x7fff};
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
  if (magnitude == 0 || exponent < -13) exponent = -13;
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));  // of 2^(exponent - 11)
  return {static_cast<uint16_t>(sign | (((exponent + 13) << 10) + steps))};
}

#endif  // CUDA_EMULATION_CUDA_FP16_H_
