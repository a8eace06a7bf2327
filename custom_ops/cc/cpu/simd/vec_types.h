// SPDX-License-Identifier: Apache-2.0
// The types of vectors of accumulators. They use the vector extensions of GCC and Clang and have the width of the
// target's registers.
#ifndef KERAS_DYNFILTER_CPU_SIMD_VEC_TYPES_H_
#define KERAS_DYNFILTER_CPU_SIMD_VEC_TYPES_H_

#include <cstdint>
#include <cstring>

#include "cpu/isa_target.h"

#define KDF_INLINE inline __attribute__((always_inline))

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <typename A>
inline constexpr int kLanes = kVectorBytes / sizeof(A);

template <typename A>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t integer __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t halves __attribute__((vector_size(kVectorBytes / 2)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t integer __attribute__((vector_size(kVectorBytes)));
};
template <typename A>
using Vec = typename VecOf<A>::type;

template <typename A>
KDF_INLINE Vec<A> broadcast(A value) {
  return Vec<A>{} + value;
}

template <typename To, typename From>
KDF_INLINE To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_SIMD_VEC_TYPES_H_
