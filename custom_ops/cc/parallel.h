// SPDX-License-Identifier: Apache-2.0
// Splits work into ranges, the same way on every host.
#ifndef KERAS_DYNFILTER_PARALLEL_H_
#define KERAS_DYNFILTER_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

#ifdef __CUDACC__
#define KDF_HOST_DEVICE __host__ __device__
#else
#define KDF_HOST_DEVICE
#endif

namespace keras_dynfilter {

// The quotient rounded up, for any `a` and positive `b`.
KDF_HOST_DEVICE inline int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

// The indices [begin, end).
struct Range {
  int64_t begin, end;
};

// Runs body(begin, end) over disjoint ranges that cover [0, total). `cost` estimates the nanoseconds per index.
using ParallelFor =
    std::function<void(int64_t total, int64_t cost, const std::function<void(int64_t begin, int64_t end)>& body)>;

// Returns a ParallelFor for bodies that can throw. In a thread of a pool, an exception would end the process. Here all
// ranges run, and then the first exception is thrown again in the calling thread.
inline ParallelFor rethrowing(const ParallelFor& parallel_for) {
  return [&parallel_for](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    std::mutex mutex;
    std::exception_ptr first;
    parallel_for(total, cost, [&](int64_t begin, int64_t end) {
      try {
        body(begin, end);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
    if (first) std::rethrow_exception(first);
  };
}

// Range number `index` of `count` ranges of nearly equal length that cover [0, total).
inline Range nth_range(int64_t total, int64_t index, int64_t count) {
  return {total * index / count, total * (index + 1) / count};
}

// The number of ranges into which a ParallelFor splits [0, total): at most `max_ranges`, with about 20 microseconds of
// work or more in each.
inline int64_t range_count(int64_t total, int64_t cost, int64_t max_ranges) {
  constexpr int64_t kMinNanoseconds = 20000;
  const int64_t min_length = std::max<int64_t>(kMinNanoseconds / std::max<int64_t>(cost, 1), 1);
  return std::min(max_ranges, ceil_div(total, min_length));
}

// The number of bands into which a sum over `units` (rows or pixels) is split. Each band has its own partial sum, and
// the partial sums are added in order. The number depends only on the sizes, never on the number of threads, so the
// result has the same bits on every run.
inline int64_t band_count(int64_t products, int64_t units) {
  constexpr int64_t kProductsPerBand = int64_t{1} << 20, kMaxBands = 64;
  return std::clamp<int64_t>(products / kProductsPerBand, 1, std::clamp<int64_t>(units, 1, kMaxBands));
}

// The partial sums of a batch. They would need 64 times the memory of the result in the worst case, so large partial
// sums have fewer bands, and a large batch is computed in groups of samples.
struct PartialSums {
  int64_t bands;    // of each sample
  int64_t samples;  // of a group
  int64_t bytes;    // of the partial sums of a group
};

// Splits sums over a batch, where each sample has at most `bands` bands with partial sums of `bytes` bytes each. The
// memory is at most 128 MiB, or one partial sum per sample if these need more.
inline PartialSums split_sums(int64_t batch, int64_t bands, int64_t bytes) {
  constexpr int64_t kMaxBytes = int64_t{128} << 20;
  if (batch == 0 || bytes == 0) return {1, std::max<int64_t>(batch, 1), 0};
  const int64_t kept = std::clamp<int64_t>(kMaxBytes / bytes, 1, bands);
  const int64_t samples = std::clamp<int64_t>(std::max(kMaxBytes, batch * bytes) / (kept * bytes), 1, batch);
  return {kept, samples, samples * kept * bytes};
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_PARALLEL_H_
