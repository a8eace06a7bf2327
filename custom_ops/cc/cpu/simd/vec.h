// SPDX-License-Identifier: Apache-2.0
// Vectors of accumulators: loads and stores with conversion from and to the storage type, sums over the lanes, exp.
//
// The vectors use the vector extensions of GCC and Clang and have the width of the target's registers. The compiler
// implements their operations, so the same source works for AVX-512, AVX2, SSE and NEON.
#ifndef KERAS_DYNFILTER_CPU_SIMD_VEC_H_
#define KERAS_DYNFILTER_CPU_SIMD_VEC_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/types/half.h"
#include "family.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

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

// --- Conversions. They avoid denormal floats, because the host program may flush denormal floats to zero.

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

KDF_INLINE VecOf<float>::halves narrow(Vec<float> value, BFloat16) {
  using Bits = VecOf<float>::bits;
  const Bits all = bit_cast<Bits>(value);
  const Bits rounded = (all + 0x7fffu + ((all >> 16) & 1u)) >> 16;
  const Bits quiet = (all >> 16) | 0x40u;
  const Bits result = (all & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  return __builtin_convertvector(result, VecOf<float>::halves);
}

// --- Loads and stores of a whole vector, and of its first `count` lanes. The other lanes are loaded as zero.

template <typename T>
KDF_INLINE Vec<Accumulator<T>> load(const T* p) {
  if constexpr (std::is_floating_point_v<T>) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  } else {
    VecOf<float>::halves h;
    std::memcpy(&h, p, sizeof(h));
    return widen(h, T{});
  }
}

template <typename T>
KDF_INLINE void store(T* p, Vec<Accumulator<T>> v) {
  if constexpr (std::is_floating_point_v<T>) {
    std::memcpy(p, &v, sizeof(v));
  } else {
    const VecOf<float>::halves h = narrow(v, T{});
    std::memcpy(p, &h, sizeof(h));
  }
}

template <typename T>
KDF_INLINE Vec<Accumulator<T>> load(const T* p, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
  }
#endif
  T lanes[kLanes<Accumulator<T>>] = {};
  std::memcpy(lanes, p, count * sizeof(T));
  return load(lanes);
}

template <typename T>
KDF_INLINE void store(T* p, Vec<Accumulator<T>> v, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1u), (__m512)v);
    return;
  }
#endif
  T lanes[kLanes<Accumulator<T>>];
  store(lanes, v);
  std::memcpy(p, lanes, count * sizeof(T));
}

// Stores a vector and bypasses the caches. For results that do not fit the caches, this saves reading the cache lines
// that are overwritten. `p` is aligned to a vector. Call `finish_streaming` before other threads read the result.
template <typename A>
KDF_INLINE void stream(A* p, Vec<A> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}

inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <typename T>
KDF_INLINE Accumulator<T> to_accumulator(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value;
  } else {
    return load(&value, 1)[0];
  }
}

template <typename T>
KDF_INLINE T from_accumulator(Accumulator<T> value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value;
  } else {
    T result;
    store(&result, broadcast(value), 1);
    return result;
  }
}

// The sum over the lanes. The order of the additions is fixed.
template <typename A>
KDF_INLINE A sum(Vec<A> v) {
  A lanes[kLanes<A>];
  std::memcpy(lanes, &v, sizeof(v));
#pragma GCC unroll 4
  for (int width = kLanes<A> / 2; width > 0; width /= 2) {
#pragma GCC unroll 16
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

#if defined(__AVX512F__)
template <>
KDF_INLINE float sum<float>(Vec<float> v) {
  return _mm512_reduce_add_ps((__m512)v);
}
#endif

template <typename A>
KDF_INLINE Vec<A> maximum(Vec<A> a, Vec<A> b) {
  return a > b ? a : b;
}

// The maximum over the lanes; undefined if a lane is NaN.
template <typename A>
KDF_INLINE A maximum(Vec<A> v) {
  A lanes[kLanes<A>];
  std::memcpy(lanes, &v, sizeof(v));
#pragma GCC unroll 4
  for (int width = kLanes<A> / 2; width > 0; width /= 2) {
#pragma GCC unroll 16
    for (int l = 0; l < width; ++l) lanes[l] = lanes[l] > lanes[l + width] ? lanes[l] : lanes[l + width];
  }
  return lanes[0];
}

#if defined(__AVX512F__)
template <>
KDF_INLINE float maximum<float>(Vec<float> v) {
  return _mm512_reduce_max_ps((__m512)v);
}
#endif

// The first `count` lanes of `v`; the other lanes are `fill`.
template <typename A>
KDF_INLINE Vec<A> first(Vec<A> v, int64_t count, A fill) {
  typename VecOf<A>::integer lane;
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<A>; ++l) lane[l] = l;
  return lane < (lane - lane) + static_cast<std::conditional_t<sizeof(A) == 4, int32_t, int64_t>>(count)
             ? v
             : Vec<A>{} + fill;
}

// exp(x) for x <= 0, such as a difference from a maximum. Results that are too small for a normal number are 0; NaN
// stays NaN.
template <typename A>
KDF_INLINE Vec<A> exp_of_difference(Vec<A> x) {
  constexpr bool kFloat = std::is_same_v<A, float>;
  using Integer = typename VecOf<A>::integer;
  constexpr A kLowest = kFloat ? A(-87.3) : A(-708.3);
  const Vec<A> clamped = x > kLowest ? x : (x == x ? Vec<A>{} + kLowest : x);
  // x = n * ln 2 + r. Adding 1.5 * 2^mantissa rounds to an integer and leaves the integer in the low bits.
  const Vec<A> magic = Vec<A>{} + (kFloat ? A(12582912.0) : A(6755399441055744.0));
  const Vec<A> shifted = clamped * A(1.44269504088896340736) + magic;
  const Vec<A> n = shifted - magic;
  const Vec<A> ln2_high = Vec<A>{} + (kFloat ? A(0.693145751953125) : A(0.693147180369123816490));
  const Vec<A> ln2_low = Vec<A>{} + (kFloat ? A(1.42860682030941723212e-6) : A(1.90821492927058770002e-10));
  const Vec<A> r = (clamped - n * ln2_high) - n * ln2_low;
  // Taylor series. Its order is sufficient for |r| <= ln 2 / 2.
  constexpr int kOrder = kFloat ? 7 : 13;
  constexpr A kInverse[] = {
      1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
      1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  Vec<A> series = Vec<A>{} + kInverse[kOrder];
#pragma GCC unroll 13
  for (int k = kOrder - 1; k >= 0; --k) series = series * r + kInverse[k];
  constexpr int kMantissa = kFloat ? 23 : 52;
  const Integer exponent = bit_cast<Integer>(shifted) - bit_cast<Integer>(magic);
  const Integer one = bit_cast<Integer>(Vec<A>{} + A(1));
  const Vec<A> power = bit_cast<Vec<A>>((exponent << kMantissa) + one);
  return x < kLowest ? Vec<A>{} : series * power;
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_SIMD_VEC_H_
