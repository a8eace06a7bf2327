// SPDX-License-Identifier: Apache-2.0
// The buffers of a call, typed, and what every kernel does with a finished gradient of a filter.
#ifndef KERAS_DYNFILTER_CPU_OPERANDS_H_
#define KERAS_DYNFILTER_CPU_OPERANDS_H_

#include "cpu/softmax.h"
#include "cpu/vec.h"
#include "filter.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

template <typename T>
struct Operands {
  const T* inputs;
  const T* spatial;
  const T* channel;
  const T* grad;
  T* result;

  explicit Operands(const Buffers& b)
      : inputs(static_cast<const T*>(b.inputs)),
        spatial(static_cast<const T*>(b.spatial)),
        channel(static_cast<const T*>(b.channel)),
        grad(static_cast<const T*>(b.grad)),
        result(static_cast<T*>(b.result)) {}
};

// Writes the gradient by the filter that begins at `filter`: `sums` is that by the weights; for logits it goes
// through the softmax, p * (sums - sum_t p sums), with `weights` as room for p.
template <typename T, Weight kWeight>
KDF_INLINE void write_filter_gradient(const Operands<T>& o, int64_t filter, int64_t K, const Accumulator<T>* sums,
                                      Accumulator<T>* weights) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  T* result = o.result + filter;
  A mean = 0, scale = 1;
  if constexpr (kWeight == Weight::kSoftmax) {
    scale = exponentials(o.spatial + filter, K, weights).scale;
    Vec<A> total{};
    int64_t t = 0;
    for (; t + L <= K; t += L) total += load(weights + t) * load(sums + t);
    if (t < K) total += load(weights + t, K - t) * load(sums + t, K - t);
    mean = sum<A>(total) * scale;
  }
  int64_t t = 0;
  for (; t + L <= K; t += L) {
    Vec<A> value = load(sums + t);
    if constexpr (kWeight == Weight::kSoftmax) value = load(weights + t) * scale * (value - mean);
    store(result + t, value);
  }
  if (t < K) {
    Vec<A> value = load(sums + t, K - t);
    if constexpr (kWeight == Weight::kSoftmax) value = load(weights + t, K - t) * scale * (value - mean);
    store(result + t, value, K - t);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL

#endif  // KERAS_DYNFILTER_CPU_OPERANDS_H_
