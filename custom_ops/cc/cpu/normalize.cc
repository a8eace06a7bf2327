// SPDX-License-Identifier: Apache-2.0
// Normalisation with a filter per lane: filters side by side are copied to where tap by tap makes a vector. For filters
// whose taps lie side by side, a vector of taps per filter was slower.
#include "normalize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/softmax.h"
#include "cpu/vec.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {
namespace {

template <typename A>
Vec<A> square_root(Vec<A> v) {
  A lanes[kLanes<A>];
  store(lanes, v);
  for (A& lane : lanes) lane = std::sqrt(lane);
  return load(lanes);
}

// Up to a vector of filters, from number `first` on.
template <typename A>
class Lanes {
  static constexpr int64_t L = kLanes<A>;

 public:
  Lanes(const Normalization& n, int64_t first)
      : taps_(n.taps),
        inner_(n.inner),
        first_(first),
        count_(std::min(L, n.outer * n.inner - first)),
        beside_(first % inner_ + count_ <= inner_) {}

  void read(const A* from, A* to) const {
    if (beside_) {
      from += origin(0);
      for (int64_t t = 0; t < taps_; ++t, from += inner_) {
        store(to + t * L, count_ == L ? load(from) : load(from, count_));
      }
      return;
    }
    for (int64_t l = 0; l < L; ++l) {
      const A* filter = from + origin(std::min(l, count_ - 1));
      for (int64_t t = 0; t < taps_; ++t) to[t * L + l] = filter[t * inner_];
    }
  }

  void write(const A* from, A* to) const {
    if (beside_) {
      to += origin(0);
      for (int64_t t = 0; t < taps_; ++t, to += inner_) {
        count_ == L ? store(to, load(from + t * L)) : store(to, load(from + t * L), count_);
      }
      return;
    }
    for (int64_t l = 0; l < count_; ++l) {
      A* filter = to + origin(l);
      for (int64_t t = 0; t < taps_; ++t) filter[t * inner_] = from[t * L + l];
    }
  }

 private:
  int64_t origin(int64_t lane) const {
    const int64_t filter = first_ + lane;
    return filter / inner_ * taps_ * inner_ + filter % inner_;
  }

  const int64_t taps_, inner_, first_, count_;
  const bool beside_;  // in memory, for each tap
};

// Subtracts from `values`, a vector for each tap, their means. Those of equal numbers may be rounded, but the
// differences of equal numbers are exactly 0, and so are the means of these.
template <typename A>
void centre(int64_t taps, A* values) {
  constexpr int64_t L = kLanes<A>;
  const Vec<A> first = load(values);
  Vec<A> total{};
  for (int64_t t = 0; t < taps; ++t) {
    const Vec<A> difference = load(values + t * L) - first;
    store(values + t * L, difference);
    total += difference;
  }
  const Vec<A> mean = total / static_cast<A>(taps);
  for (int64_t t = 0; t < taps; ++t) store(values + t * L, load(values + t * L) - mean);
}

template <typename A>
void multiply(int64_t taps, A* values, Vec<A> factor) {
  for (int64_t t = 0; t < taps; ++t) store(values + t * kLanes<A>, load(values + t * kLanes<A>) * factor);
}

// The sums of products over the taps.
template <typename A>
Vec<A> products(int64_t taps, const A* a, const A* b) {
  Vec<A> total{};
  for (int64_t t = 0; t < taps; ++t) total += load(a + t * kLanes<A>) * load(b + t * kLanes<A>);
  return total;
}

template <typename A, bool kGradient>
void run_type(const Normalization& n, const NormalizationBuffers& b, const ParallelFor& parallel_for) {
  constexpr int64_t L = kLanes<A>;
  const int64_t filters = n.outer * n.inner, taps = n.taps;
  const A gain = static_cast<A>(n.gain), epsilon = static_cast<A>(n.epsilon), others = static_cast<A>(taps - 1);
  parallel_for((filters + L - 1) / L, taps * (kGradient ? 16 : 8), [&](int64_t begin, int64_t end) {
    FilterBuffer<A> value_buffer(taps * L), grad_buffer(kGradient ? taps * L : 0);
    A *values = value_buffer.get(), *grads = grad_buffer.get();
    for (int64_t group = begin; group < end; ++group) {
      const Lanes<A> lanes(n, group * L);
      lanes.read(static_cast<const A*>(b.filters), values);
      centre(taps, values);
      const Vec<A> variance = products(taps, values, values) / others;
      const auto varies = variance > broadcast(std::numeric_limits<A>::min());
      const Vec<A> deviation = square_root<A>(varies ? variance : broadcast(A(1)));
      const Vec<A> inverse = varies ? A(1) / (deviation + epsilon) : Vec<A>{};
      if constexpr (!kGradient) {
        multiply(taps, values, gain * inverse);
        lanes.write(values, static_cast<A*>(b.result));
      } else {
        // With the standardised taps u: gain / (std + epsilon) * (grad - u * sum(grad * u) * (1 + epsilon / std) /
        // (taps - 1)), of a centred grad. Nothing in it becomes too large or too small before the result does.
        lanes.read(static_cast<const A*>(b.grad), grads);
        centre(taps, grads);
        multiply(taps, values, inverse);
        const Vec<A> share = products(taps, grads, values) * (A(1) + epsilon / deviation) / others;
        for (int64_t t = 0; t < taps; ++t) {
          store(grads + t * L, (load(grads + t * L) - load(values + t * L) * share) * (gain * inverse));
        }
        lanes.write(grads, static_cast<A*>(b.result));
      }
    }
  });
}

template <typename A>
void run_member(const Normalization& n, const NormalizationBuffers& b, const ParallelFor& parallel_for) {
  if (b.grad != nullptr) return run_type<A, true>(n, b, parallel_for);
  run_type<A, false>(n, b, parallel_for);
}

}  // namespace

void run(const Normalization& n, const NormalizationBuffers& b, const ParallelFor& parallel_for) {
  if (n.outer * n.inner == 0) return;
  if (n.dtype == DType::kFloat64) return run_member<double>(n, b, parallel_for);
  run_member<float>(n, b, parallel_for);
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL
