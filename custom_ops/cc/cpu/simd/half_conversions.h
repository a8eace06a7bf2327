// SPDX-License-Identifier: Apache-2.0
// Converts vectors of float16 and bfloat16 values to float32 and back, rounding to nearest even.
#ifndef KERAS_DYNFILTER_CPU_SIMD_HALF_CONVERSIONS_H_
#define KERAS_DYNFILTER_CPU_SIMD_HALF_CONVERSIONS_H_

#include "cpu/simd/vec_types.h"
#include "cpu/types/half.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

#if defined(__aarch64__)

// One instruction each. GCC 12 takes the portable form apart, lane by lane. The conversions keep subnormal halves,
// whether or not the thread flushes subnormal floats.
KDF_INLINE Vec<float> widen(VecOf<float>::halves halves, Float16) {
  return (Vec<float>)vcvt_f32_f16(vreinterpret_f16_u16((uint16x4_t)halves));
}

KDF_INLINE VecOf<float>::halves narrow(Vec<float> value, Float16) {
  return (VecOf<float>::halves)vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value));
}

KDF_INLINE Vec<float> widen(VecOf<float>::halves halves, BFloat16) {
  return (Vec<float>)vreinterpretq_f32_u32(vshll_n_u16((uint16x4_t)halves, 16));
}

#else

// The conversions avoid subnormal floats, because the host program may flush subnormal floats to zero.
KDF_INLINE Vec<float> widen(VecOf<float>::halves halves, Float16) {
  using Bits = VecOf<float>::bits;
  const Bits h = __builtin_convertvector(halves, Bits);
  const Bits sign = (h & 0x8000u) << 16;
  const Bits magnitude = (h & 0x7fffu) << 13;
  const Bits normal = magnitude + (112u << 23);
  const Bits special = magnitude | 0x7f800000u;
  // A subnormal half has the value m * 2^-24. The float with the exponent of 2^-14 and the mantissa m is 2^-14 larger.
  const Vec<float> smallest = bit_cast<Vec<float>>(Bits{} + (113u << 23));
  const Bits subnormal = bit_cast<Bits>(bit_cast<Vec<float>>(magnitude + (113u << 23)) - smallest);
  Bits result = magnitude < (1u << 23) ? subnormal : normal;
  result = magnitude >= (31u << 23) ? special : result;
  return bit_cast<Vec<float>>(result | sign);
}

KDF_INLINE VecOf<float>::halves narrow(Vec<float> value, Float16) {
  using Bits = VecOf<float>::bits;
  const Bits all = bit_cast<Bits>(value);
  const Bits sign = all & 0x80000000u;
  const Bits magnitude = all ^ sign;
  const Bits odd = (magnitude >> 13) & 1u;
  const Bits normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  // Adding 0.5 aligns the mantissa of a subnormal result with the last bits and rounds to nearest even.
  const Vec<float> half = Vec<float>{} + 0.5f;
  const Bits subnormal = bit_cast<Bits>(bit_cast<Vec<float>>(magnitude) + half) - bit_cast<Bits>(half);
  Bits result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= (143u << 23) ? Bits{} + 0x7c00u : result;
  result = magnitude > 0x7f800000u ? Bits{} + 0x7e00u : result;
  return __builtin_convertvector(result | (sign >> 16), VecOf<float>::halves);
}

KDF_INLINE Vec<float> widen(VecOf<float>::halves halves, BFloat16) {
  using Bits = VecOf<float>::bits;
  return bit_cast<Vec<float>>(__builtin_convertvector(halves, Bits) << 16);
}

#endif

KDF_INLINE VecOf<float>::halves narrow(Vec<float> value, BFloat16) {
  using Bits = VecOf<float>::bits;
  const Bits all = bit_cast<Bits>(value);
  const Bits rounded = (all + 0x7fffu + ((all >> 16) & 1u)) >> 16;
  const Bits quiet = (all >> 16) | 0x40u;
  const Bits result = (all & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  return __builtin_convertvector(result, VecOf<float>::halves);
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_SIMD_HALF_CONVERSIONS_H_
