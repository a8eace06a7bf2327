// SPDX-License-Identifier: Apache-2.0
// Divides the channels of a head into blocks of vectors, and loads and stores a block.
#ifndef KERAS_DYNFILTER_CPU_SIMD_CHANNEL_BLOCKS_H_
#define KERAS_DYNFILTER_CPU_SIMD_CHANNEL_BLOCKS_H_

#include <algorithm>

#include "cpu/simd/vec.h"
#include "family.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes {

// Calls body(offset, block, count) for blocks that cover [0, channels): blocks of four vectors, then blocks of one
// vector, then block 0 with the `count` remaining channels.
template <typename A, typename Body>
KDF_INLINE void for_blocks(int64_t channels, const Body& body) {
  constexpr int L = kLanes<A>;
  int64_t c = 0;
  for (; c + 4 * L <= channels; c += 4 * L) body(c, std::integral_constant<int, 4>{}, int64_t{L});
  for (; c + L <= channels; c += L) body(c, std::integral_constant<int, 1>{}, int64_t{L});
  if (c < channels) body(c, std::integral_constant<int, 0>{}, channels - c);
}

// Loads vector `b` of a block of kBlock vectors that starts at p. If kBlock is 0, the block is the first `count` lanes
// of one vector.
template <int kBlock, typename T>
KDF_INLINE Vec<Accumulator<T>> load_block(const T* p, int b, int64_t count) {
  if constexpr (kBlock == 0) return load(p, count);
  return load(p + b * kLanes<Accumulator<T>>);
}

template <int kBlock, typename T>
KDF_INLINE void store_block(T* p, int b, int64_t count, Vec<Accumulator<T>> v) {
  if constexpr (kBlock == 0) {
    store(p, v, count);
  } else {
    store(p + b * kLanes<Accumulator<T>>, v);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes

#endif  // KERAS_DYNFILTER_CPU_SIMD_CHANNEL_BLOCKS_H_
