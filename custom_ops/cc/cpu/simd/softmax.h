// SPDX-License-Identifier: Apache-2.0
// Softmax over the taps of one filter.
#ifndef KERAS_DYNFILTER_CPU_SIMD_SOFTMAX_H_
#define KERAS_DYNFILTER_CPU_SIMD_SOFTMAX_H_

#include <limits>
#include <memory>

#include "cpu/simd/vec.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

// Memory for one filter, on the stack unless the window is large. Throws std::bad_alloc if a very large filter does not
// fit into memory.
template <typename A>
class FilterBuffer {
 public:
  explicit FilterBuffer(int64_t size) {
    if (size > kInline) heap_.reset(new A[size]);
  }
  A* get() { return heap_ ? heap_.get() : inline_; }

 private:
  static constexpr int64_t kInline = 512;
  alignas(64) A inline_[kInline];
  std::unique_ptr<A[]> heap_;
};

template <typename A>
struct Softmax {
  A maximum, scale;  // p = exp(logit - maximum) * scale
};

// The maximum of the logits. It may ignore a NaN, which is safe: the sum of the exponentials is NaN anyway.
template <typename T>
KDF_INLINE Accumulator<T> maximum_of(const T* logits, int64_t n) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  Vec<A> m = broadcast(kLowest);
  int64_t t = 0;
  for (; t + L <= n; t += L) m = maximum<A>(m, load(logits + t));
  if (t < n) m = maximum<A>(m, first<A>(load(logits + t, n - t), n - t, kLowest));
  return maximum<A>(m);
}

// Writes exp(logit - maximum) to `results` and returns the normalisation.
template <typename T>
KDF_INLINE Softmax<Accumulator<T>> exponentials(const T* logits, int64_t n, Accumulator<T>* results) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  const A highest = maximum_of(logits, n);
  Vec<A> total{};
  int64_t t = 0;
  for (; t + L <= n; t += L) {
    const Vec<A> e = exp_of_difference<A>(load(logits + t) - highest);
    store(results + t, e);
    total += e;
  }
  if (t < n) {
    const Vec<A> e = exp_of_difference<A>(load(logits + t, n - t) - highest);
    store(results + t, e, n - t);
    total += first<A>(e, n - t, A(0));
  }
  return {highest, A(1) / sum<A>(total)};
}

template <typename A>
KDF_INLINE A exponential(A difference) {
  return exp_of_difference<A>(broadcast(difference))[0];
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_SIMD_SOFTMAX_H_
