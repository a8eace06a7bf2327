// SPDX-License-Identifier: Apache-2.0
// What the handlers of custom calls share.
#ifndef KERAS_DYNFILTER_XLA_HANDLER_H_
#define KERAS_DYNFILTER_XLA_HANDLER_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
const XLA_FFI_Api* GetXlaFfiApi();  // exported by TensorFlow, declared in no header of the C API
}

namespace keras_dynfilter {

namespace ffi = xla::ffi;

// Shares ranges between the caller and the pool's threads. The caller works too and waits only for ranges that a
// thread has begun, so a pool whose threads all wait like this still makes progress.
inline void parallel_for(ffi::ThreadPool& pool, int64_t total, int64_t cost,
                         const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kNanosecondsPerRange = 20000;
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t per_range = std::max<int64_t>(kNanosecondsPerRange / std::max<int64_t>(cost, 1), 1);
  const int64_t ranges = std::min(4 * threads, (total + per_range - 1) / per_range);
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
      (*run)(total* r / ranges, total * (r + 1) / ranges);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == ranges) shared->finished.notify_all();
    }
  };
  for (int64_t t = 1; t < std::min(threads, ranges); ++t) pool.Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == ranges; });
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_HANDLER_H_
