// SPDX-License-Identifier: Apache-2.0
// Divides work among the threads of XLA's pool, for the handlers of custom calls.
#ifndef KERAS_DYNFILTER_XLA_THREAD_POOL_H_
#define KERAS_DYNFILTER_XLA_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>

#include "parallel.h"

namespace keras_dynfilter {

// Divides the work between the caller and the threads of `pool`, an xla::ffi::ThreadPool. The caller works too, and
// waits only for ranges that a thread has started. A pool whose threads all wait here therefore still makes progress.
template <typename Pool>
void parallel_for(Pool& pool, int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t ranges = range_count(total, cost, 4 * threads);
  if (threads == 1 || ranges <= 1) return body(0, total);

  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  const auto work = [shared, total, ranges, run = &body] {
    for (int64_t r; (r = shared->next.fetch_add(1)) < ranges;) {
      const Range range = nth_range(total, r, ranges);
      (*run)(range.begin, range.end);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == ranges) shared->finished.notify_all();
    }
  };
  try {
    for (int64_t t = 1; t < std::min(threads, ranges); ++t) pool.Schedule(std::function<void()>(work));
  } catch (const std::bad_alloc&) {
    // The threads that were scheduled still use `body`, so the caller computes the other ranges itself.
  }
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == ranges; });
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_THREAD_POOL_H_
