// SPDX-License-Identifier: Apache-2.0
// Sums the lanes of many vectors at once. Every step halves the number of vectors, which is faster than summing one
// vector at a time.
#ifndef KERAS_DYNFILTER_CPU_SIMD_LANE_SUMS_H_
#define KERAS_DYNFILTER_CPU_SIMD_LANE_SUMS_H_

#include <cstring>
#include <utility>

#include "cpu/simd/vec.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define KDF_SHUFFLES
#endif
#endif

#ifdef KDF_SHUFFLES

// Adds the two halves of every block of `Width` lanes. The result contains the sums of the blocks of `a`, then the sums
// of the blocks of `b`.
template <typename A, int Width, int... I>
KDF_INLINE Vec<A> folded(Vec<A> a, Vec<A> b, std::integer_sequence<int, I...>) {
  constexpr int L = kLanes<A>, kHalf = Width / 2;
  constexpr auto lane = [](int i) {
    const int j = i % (L / 2);
    return (i < L / 2 ? 0 : L) + j / kHalf * Width + j % kHalf;
  };
  return __builtin_shufflevector(a, b, lane(I)...) + __builtin_shufflevector(a, b, (lane(I) + kHalf)...);
}

// Reduces each of kLanes / Width vectors to a block of Width lanes of the result, in order.
template <typename A, int Width>
KDF_INLINE Vec<A> blocks_of(const Vec<A>* vectors) {
  if constexpr (Width == kLanes<A>) {
    return *vectors;
  } else {
    constexpr int kCount = kLanes<A> / Width;
    return folded<A, 2 * Width>(blocks_of<A, 2 * Width>(vectors), blocks_of<A, 2 * Width>(vectors + kCount / 2),
                                std::make_integer_sequence<int, kLanes<A>>());
  }
}

#endif

// Writes the sums over the lanes of `Count` vectors. The order of the additions is fixed.
template <typename A, int Count>
KDF_INLINE void lane_sums(const Vec<A>* vectors, A* results) {
#ifdef KDF_SHUFFLES
  constexpr int L = kLanes<A>;
  if constexpr (Count > L) {
    lane_sums<A, L>(vectors, results);
    lane_sums<A, Count - L>(vectors + L, results + L);
  } else {
    Vec<A> all[L] = {};
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i) all[i] = vectors[i];
    const Vec<A> totals = blocks_of<A, 1>(all);
    std::memcpy(results, &totals, Count * sizeof(A));
  }
#else
  for (int i = 0; i < Count; ++i) results[i] = sum<A>(vectors[i]);
#endif
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_SIMD_LANE_SUMS_H_
