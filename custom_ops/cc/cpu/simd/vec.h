// SPDX-License-Identifier: Apache-2.0
// Vectors of accumulators: loads and stores with conversion from and to the storage type, sums over the lanes, exp.
//
// The compiler implements the operations of the vectors, so the same source works for AVX-512, AVX2, SSE and NEON.
#ifndef KERAS_DYNFILTER_CPU_SIMD_VEC_H_
#define KERAS_DYNFILTER_CPU_SIMD_VEC_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/simd/half_conversions.h"
#include "cpu/simd/vec_types.h"
#include "family.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

// --- Loads and stores of a whole vector, and of its first `count` lanes. The other lanes are loaded as zero.

#if defined(__aarch64__)

// The vector of values in their storage type: floating-point values, or the bits of halves.
template <typename T>
struct StoredOf {
  using type = Vec<T>;
};
template <>
struct StoredOf<Float16> {
  using type = VecOf<float>::halves;
};
template <>
struct StoredOf<BFloat16> {
  using type = VecOf<float>::halves;
};

// A vector at the address of one of its elements. GCC 12 moves the 16 bytes of a memcpy through general registers.
template <typename T>
struct __attribute__((packed, may_alias)) Unaligned {
  typename StoredOf<T>::type value;
};

template <typename T>
KDF_INLINE Vec<Accumulator<T>> from_stored(typename StoredOf<T>::type stored) {
  if constexpr (std::is_floating_point_v<T>) {
    return stored;
  } else {
    return widen(stored, T{});
  }
}

template <typename T>
KDF_INLINE typename StoredOf<T>::type to_stored(Vec<Accumulator<T>> v) {
  if constexpr (std::is_floating_point_v<T>) {
    return v;
  } else {
    return narrow(v, T{});
  }
}

template <typename T>
KDF_INLINE Vec<Accumulator<T>> load(const T* p) {
  return from_stored<T>(reinterpret_cast<const Unaligned<T>*>(p)->value);
}

template <typename T>
KDF_INLINE void store(T* p, Vec<Accumulator<T>> v) {
  reinterpret_cast<Unaligned<T>*>(p)->value = to_stored<T>(v);
}

// At most three lanes, one by one: a call of memcpy takes longer.
template <typename T>
KDF_INLINE Vec<Accumulator<T>> load(const T* p, int64_t count) {
  typename StoredOf<T>::type lanes{};
#pragma GCC unroll 4
  for (int l = 0; l < kLanes<Accumulator<T>>; ++l) {
    if (l >= count) break;
    if constexpr (std::is_floating_point_v<T>) {
      lanes[l] = p[l];
    } else {
      lanes[l] = p[l].bits;
    }
  }
  return from_stored<T>(lanes);
}

template <typename T>
KDF_INLINE void store(T* p, Vec<Accumulator<T>> v, int64_t count) {
  const auto lanes = to_stored<T>(v);
#pragma GCC unroll 4
  for (int l = 0; l < kLanes<Accumulator<T>>; ++l) {
    if (l >= count) break;
    if constexpr (std::is_floating_point_v<T>) {
      p[l] = lanes[l];
    } else {
      p[l].bits = lanes[l];
    }
  }
}

#else

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

#endif

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
#elif defined(__aarch64__)
template <>
KDF_INLINE float sum<float>(Vec<float> v) {
  return vpadds_f32(vadd_f32(vget_low_f32((float32x4_t)v), vget_high_f32((float32x4_t)v)));
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
#elif defined(__aarch64__)
template <>
KDF_INLINE float maximum<float>(Vec<float> v) {
  return vmaxvq_f32((float32x4_t)v);
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
