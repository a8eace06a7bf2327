// SPDX-License-Identifier: Apache-2.0
// The channels of a head in blocks of vectors, and what is done to a block.
#ifndef KERAS_DYNFILTER_CPU_CHANNEL_BLOCKS_H_
#define KERAS_DYNFILTER_CPU_CHANNEL_BLOCKS_H_

#include <algorithm>

#include "cpu/vec.h"
#include "filter.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL::channel_lanes {

// Calls body(offset, lanes) for blocks that cover [0, channels): four vectors at a time, then one, then the rest.
template <typename A, typename Body>
KDF_INLINE void for_blocks(int64_t channels, const Body& body) {
  constexpr int L = kLanes<A>;
  int64_t c = 0;
  for (; c + 4 * L <= channels; c += 4 * L) body(c, std::integral_constant<int, 4>{}, int64_t{L});
  for (; c + L <= channels; c += L) body(c, std::integral_constant<int, 1>{}, int64_t{L});
  if (c < channels) body(c, std::integral_constant<int, 0>{}, channels - c);
}

// kBlock vectors from p on; kBlock 0 is one vector of which `count` lanes exist.
template <int kBlock, typename T>
KDF_INLINE Vec<Accumulator<T>> load_block(const T* p, int b, int64_t count) {
  if constexpr (kBlock == 0) return load(p, count);
  return load(p + b * kLanes<Accumulator<T>>);
}

// Whether results are so large, and lie so, that they are stored past the caches.
template <typename T>
bool streams(const Problem& p, const T* result) {
  constexpr int64_t kLarge = 16 << 20;
  return std::is_floating_point_v<T> && result_size(p) * int64_t{sizeof(T)} >= kLarge &&
         p.channels / p.heads % kLanes<Accumulator<T>> == 0 && reinterpret_cast<uintptr_t>(result) % kVectorBytes == 0;
}

template <int kBlock, typename T>
KDF_INLINE void store_block(T* p, int b, int64_t count, Vec<Accumulator<T>> v) {
  if constexpr (kBlock == 0) {
    store(p, v, count);
  } else {
    store(p + b * kLanes<Accumulator<T>>, v);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL::channel_lanes

#endif  // KERAS_DYNFILTER_CPU_CHANNEL_BLOCKS_H_
