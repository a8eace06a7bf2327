// SPDX-License-Identifier: Apache-2.0
// Runs the CPU kernels in a program under sanitizers, with the ways in which the hosts divide work among threads. Every
// operand is allocated separately and with its exact size, so that sanitizers detect every access beyond an operand.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#define EIGEN_USE_THREADS
#include "family.h"
#include "project_and_pool.h"
#include "unsupported/Eigen/CXX11/Tensor"
#include "xla/thread_pool.h"

namespace {

std::atomic<size_t> max_bytes{~size_t{0}};  // of one allocation

void* allocate_or_throw(size_t bytes) {
  void* memory = bytes <= max_bytes ? std::malloc(bytes > 0 ? bytes : 1) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return allocate_or_throw(bytes); }
void* operator new[](size_t bytes) { return allocate_or_throw(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace {

using namespace keras_dynfilter;
using Body = std::function<void(int64_t, int64_t)>;

// The threads of XLA: a pool to which work is scheduled.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int t = 0; t < threads; ++t) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
    }
    scheduled_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  void Schedule(std::function<void()> task) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    scheduled_.notify_one();
  }
  int64_t num_threads() const { return static_cast<int64_t>(threads_.size()); }

 private:
  void work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      scheduled_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable scheduled_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

// The threads of ONNX Runtime: they take the next range until there is none.
void next_range_loop(int64_t threads, int64_t total, int64_t cost, const Body& body) {
  const int64_t ranges = range_count(total, cost, 4 * threads);
  std::atomic<int64_t> next{0};
  std::vector<std::thread> running;
  for (int64_t t = 0; t < threads; ++t) {
    running.emplace_back([&] {
      for (int64_t r; (r = next++) < ranges;) {
        const Range range = nth_range(total, r, ranges);
        body(range.begin, range.end);
      }
    });
  }
  for (auto& thread : running) thread.join();
}

// Work is estimated to be slow, so that every row or filter can have its own thread.
constexpr int64_t kSlow = 1 << 20;

ParallelFor parallel_for_of(int64_t host) {
  constexpr int kThreads = 4;
  static Pool pool(kThreads);
  static Eigen::ThreadPool eigen_pool(kThreads);
  static Eigen::ThreadPoolDevice device(&eigen_pool, kThreads);
  switch (host) {
    case 0: return [](int64_t total, int64_t, const Body& body) { body(0, total); };
    case 1:  // TensorFlow
      return [](int64_t total, int64_t, const Body& body) {
        device.parallelFor(total, Eigen::TensorOpCost(0, 0, kSlow), body);
      };
    case 2: return [](int64_t total, int64_t, const Body& body) { parallel_for(pool, total, kSlow, body); };
    default: return [](int64_t total, int64_t, const Body& body) { next_range_loop(kThreads, total, kSlow, body); };
  }
}

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};
using Block = std::unique_ptr<void, Free>;

Block allocate(int64_t bytes, int64_t alignment) {
  void* memory = nullptr;
  if (bytes > 0 && posix_memalign(&memory, static_cast<size_t>(alignment), static_cast<size_t>(bytes)) != 0) {
    std::exit(4);
  }
  if (bytes > 0) std::memset(memory, 0xff, static_cast<size_t>(bytes));  // NaN: tests detect values not written
  return Block(memory);
}

void read(std::FILE* file, void* to, int64_t bytes) {
  if (bytes > 0 && std::fread(to, 1, static_cast<size_t>(bytes), file) != static_cast<size_t>(bytes)) std::exit(3);
}

// A job: a Problem or a Projection, the host, the largest allocation, and the numbers of bytes of its tensors.
struct Job {
  int64_t is_projection;
  union {
    Problem problem;
    Projection projection;
  };
  int64_t host, max_bytes, bytes[5];
};

}  // namespace

// The first file contains the jobs, each followed by its operands. The program writes 1 to the second file if memory
// could not be allocated, else 0 and the results.
int main(int count, char** arguments) {
  std::FILE* jobs = count == 3 ? std::fopen(arguments[1], "rb") : nullptr;
  std::FILE* results = count == 3 ? std::fopen(arguments[2], "wb") : nullptr;
  if (jobs == nullptr || results == nullptr) return 2;
  Job job;
  while (std::fread(&job, sizeof(job), 1, jobs) == 1) {
    const int first_result = job.is_projection ? 3 : 4;
    Block tensors[5];
    for (int k = 0; k < 5; ++k) {
      tensors[k] = allocate(job.bytes[k], sizeof(double));
      if (k < first_result) read(jobs, tensors[k].get(), job.bytes[k]);
    }
    const ParallelFor parallel_for = parallel_for_of(job.host);
    int64_t status = 0;
    const auto run = [&](const auto& work, auto buffers) {
      const Block workspace = allocate(static_cast<int64_t>(cpu::workspace_bytes(work)), 64);
      buffers.workspace = workspace.get();
      max_bytes = static_cast<size_t>(job.max_bytes);
      try {
        cpu::run(work, buffers, parallel_for);
      } catch (const std::bad_alloc&) {
        status = 1;
      }
      max_bytes = ~size_t{0};
    };
    void* all[5];
    for (int k = 0; k < 5; ++k) all[k] = tensors[k].get();
    if (job.is_projection) {
      run(job.projection, ProjectionBuffers{all[0], all[1], all[2], all[3], all[4], nullptr});
    } else {
      run(job.problem, Buffers{all[0], all[1], all[2], all[3], all[4], nullptr});
    }
    std::fwrite(&status, sizeof(status), 1, results);
    for (int k = first_result; k < 5 && status == 0; ++k) {
      if (job.bytes[k] > 0) std::fwrite(all[k], 1, static_cast<size_t>(job.bytes[k]), results);
    }
  }
  std::fclose(jobs);
  return std::fclose(results) == 0 ? 0 : 2;
}
