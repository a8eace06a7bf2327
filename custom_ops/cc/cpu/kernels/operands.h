// SPDX-License-Identifier: Apache-2.0
// The typed buffers of a call, and the last step of every gradient with respect to spatial filters.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_OPERANDS_H_
#define KERAS_DYNFILTER_CPU_KERNELS_OPERANDS_H_

#include "cpu/simd/softmax.h"
#include "cpu/simd/vec.h"
#include "family.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

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

// Writes the gradient with respect to the spatial filter that starts at `filter`. `sums` is the gradient with respect
// to the filter values. The gradient with respect to logits is p * (sums - sum_t p * sums), where p is the softmax;
// `probabilities` is memory for p.
template <typename T, FilterKind kKind>
KDF_INLINE void write_filter_gradient(const Operands<T>& o, int64_t filter, int64_t K, const Accumulator<T>* sums,
                                      Accumulator<T>* probabilities) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  T* result = o.result + filter;
  A mean = 0, scale = 1;
  if constexpr (kKind == FilterKind::kSoftmax) {
    scale = exponentials(o.spatial + filter, K, probabilities).scale;
    Vec<A> total{};
    int64_t t = 0;
    for (; t + L <= K; t += L) total += load(probabilities + t) * load(sums + t);
    if (t < K) total += load(probabilities + t, K - t) * load(sums + t, K - t);
    mean = sum<A>(total) * scale;
  }
  int64_t t = 0;
  for (; t + L <= K; t += L) {
    Vec<A> value = load(sums + t);
    if constexpr (kKind == FilterKind::kSoftmax) value = load(probabilities + t) * scale * (value - mean);
    store(result + t, value);
  }
  if (t < K) {
    Vec<A> value = load(sums + t, K - t);
    if constexpr (kKind == FilterKind::kSoftmax) value = load(probabilities + t, K - t) * scale * (value - mean);
    store(result + t, value, K - t);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_KERNELS_OPERANDS_H_
