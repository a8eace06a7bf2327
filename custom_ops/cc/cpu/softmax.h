// SPDX-License-Identifier: Apache-2.0
// Softmax over the taps of one filter, in accumulators.
#ifndef KERAS_DYNFILTER_CPU_SOFTMAX_H_
#define KERAS_DYNFILTER_CPU_SOFTMAX_H_

#include <limits>
#include <memory>

#include "cpu/vec.h"

namespace keras_dynfilter::cpu {

// Room for one filter: on the stack unless the window is enormous.
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

template <typename T>
KDF_INLINE Accumulator<T> maximum_of(const T* logits, int64_t n) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  Vec<A> m = broadcast(-std::numeric_limits<A>::infinity());
  int64_t t = 0;
  for (; t + L <= n; t += L) m = maximum<A>(m, load(logits + t));
  if (t < n) {
    const int64_t rest = n - t;
    const Vec<A> v = load(logits + t, rest);
    for (int l = 0; l < L; ++l) {
      if (l < rest) m[l] = m[l] > v[l] ? m[l] : (v[l] == v[l] ? v[l] : v[l] + m[l]);
    }
  }
  A result = m[0];
  for (int l = 1; l < L; ++l) result = result > m[l] ? result : (m[l] == m[l] ? m[l] : m[l] + result);
  return result;
}

// Writes exp(logit - maximum) to `weights` and returns what normalises them.
template <typename T>
KDF_INLINE Softmax<Accumulator<T>> exponentials(const T* logits, int64_t n, Accumulator<T>* weights) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  const A highest = maximum_of(logits, n);
  Vec<A> total{};
  int64_t t = 0;
  for (; t + L <= n; t += L) {
    const Vec<A> e = exp_of_difference<A>(load(logits + t) - highest);
    store(weights + t, e);
    total += e;
  }
  if (t < n) {
    store(weights + t, exp_of_difference<A>(load(logits + t, n - t) - highest), n - t);
    total += load(weights + t, n - t);
  }
  return {highest, A(1) / sum<A>(total)};
}

template <typename A>
KDF_INLINE A exponential(A difference) {
  return exp_of_difference<A>(broadcast(difference))[0];
}

}  // namespace keras_dynfilter::cpu

#endif  // KERAS_DYNFILTER_CPU_SOFTMAX_H_
