// SPDX-License-Identifier: Apache-2.0
// The scheduler of the emulated device.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace keras_dynfilter::cuda {
alignas(64) unsigned char dynamic_shared[256 * 1024];  // the array that the kernels declare as `extern __shared__`
}

namespace cuda_emulation {

Settings settings = {2147483647, 227 * 1024, 0};

namespace {

using keras_dynfilter::cuda::dynamic_shared;

constexpr size_t kStack = 256 * 1024;
constexpr size_t kDefaultShared = 48 * 1024;
constexpr unsigned kWarp = 32;

enum class State { kReady, kBarrier, kShuffle, kDone };

struct Fibre {
  ucontext_t context = {};
  std::unique_ptr<char[]> stack;
  dim3 index = {};
  State state = State::kDone;
  int line = 0;           // of the barrier or shuffle at which the fibre waits
  unsigned mask, source;  // of the shuffle
  uint64_t value;
  void* fake_stack = nullptr;  // of AddressSanitizer
};

std::vector<std::unique_ptr<Fibre>> fibres;
unsigned current;
ucontext_t scheduler;
const std::function<void()>* body;
std::string failure;
std::map<const void*, size_t> allowed;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack;
size_t scheduler_size;
void* scheduler_fake_stack;
#endif

void enter(Fibre& fibre) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fibre.stack.get(), kStack);
#endif
  swapcontext(&scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fibres[current]->fake_stack, &scheduler_stack, &scheduler_size);
#endif
}

void leave(State state) {
  Fibre& fibre = *fibres[current];
  fibre.state = state;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fibre.fake_stack, scheduler_stack, scheduler_size);
#endif
  swapcontext(&fibre.context, &scheduler);
  entered();
}

void run_fibre() {
  entered();
  for (;;) {
    (*body)();
    leave(State::kDone);
  }
}

void make_fibres(unsigned count) {
  while (fibres.size() < count) {
    auto fibre = std::make_unique<Fibre>();
    fibre->stack = std::make_unique<char[]>(kStack);
    getcontext(&fibre->context);
    fibre->context.uc_stack.ss_sp = fibre->stack.get();
    fibre->context.uc_stack.ss_size = kStack;
    fibre->context.uc_link = nullptr;
    makecontext(&fibre->context, run_fibre, 0);
    fibres.push_back(std::move(fibre));
  }
}

void run_ready(unsigned count) {
  for (unsigned k = 0; k < count; ++k) {
    current = settings.reverse ? count - 1 - k : k;
    Fibre& fibre = *fibres[current];
    if (fibre.state != State::kReady) continue;
    threadIdx = fibre.index;
    enter(fibre);
  }
}

// Returns whether all threads of [begin, end) wait in `state` at the same source line.
bool all_wait(unsigned begin, unsigned end, State state) {
  for (unsigned k = begin; k < end; ++k) {
    if (fibres[k]->state != state || fibres[k]->line != fibres[begin]->line) return false;
  }
  return true;
}

bool release_barrier(unsigned count) {
  if (!all_wait(0, count, State::kBarrier)) return false;
  for (unsigned k = 0; k < count; ++k) fibres[k]->state = State::kReady;
  return true;
}

bool release_shuffle(unsigned begin, unsigned end) {
  if (!all_wait(begin, end, State::kShuffle)) return false;
  uint64_t values[kWarp] = {};
  for (unsigned k = begin; k < end; ++k) {
    if (fibres[k]->mask != 0xffffffffu) failure = "shuffles of a part of a warp are not emulated";
    if (fibres[k]->source >= end - begin) {
      failure = "shuffle from a lane that does not exist, line " + std::to_string(fibres[k]->line);
    } else {
      values[k - begin] = fibres[begin + fibres[k]->source]->value;
    }
  }
  for (unsigned k = begin; k < end; ++k) {
    fibres[k]->value = values[k - begin];
    fibres[k]->state = State::kReady;
  }
  return true;
}

void run_block(unsigned count) {
  for (unsigned k = 0; k < count; ++k) {
    fibres[k]->state = State::kReady;
    fibres[k]->index = dim3(k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y));
  }
  while (failure.empty()) {
    run_ready(count);
    unsigned done = 0;
    for (unsigned k = 0; k < count; ++k) done += fibres[k]->state == State::kDone;
    if (done == count) return;
    bool progress = release_barrier(count);
    for (unsigned begin = 0; begin < count; begin += kWarp) {
      progress |= release_shuffle(begin, begin + kWarp < count ? begin + kWarp : count);
    }
    if (progress) continue;
    failure = "threads diverge at a barrier or shuffle, lines";
    for (unsigned k = 0; k < count; ++k) {
      const Fibre& fibre = *fibres[k];
      const std::string line = fibre.state == State::kDone ? " end" : " " + std::to_string(fibre.line);
      if (failure.find(line) == std::string::npos) failure += line;
    }
  }
}

}  // namespace

void allow_shared(const void* kernel, size_t bytes) { allowed[kernel] = bytes; }

unsigned lane() { return current % kWarp; }

void barrier(int line) {
  fibres[current]->line = line;
  leave(State::kBarrier);
}

uint64_t exchange(unsigned mask, uint64_t value, unsigned lane, int line) {
  Fibre& fibre = *fibres[current];
  fibre.mask = mask;
  fibre.value = value;
  fibre.source = lane;
  fibre.line = line;
  leave(State::kShuffle);
  return fibre.value;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const size_t shared = config.dynamicSmemBytes;
  const auto limit = allowed.find(kernel);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x < 1 || grid.x > settings.max_blocks || grid.y != 1 || grid.z != 1 || threads < 1 || threads > 1024 ||
      block.z > 64 || shared > (limit == allowed.end() ? kDefaultShared : limit->second)) {
    return cudaErrorInvalidConfiguration;
  }
  make_fibres(threads);
  body = &thread;
  gridDim = grid;
  blockDim = block;
  failure.clear();
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(dynamic_shared, sizeof(dynamic_shared));
  __asan_unpoison_memory_region(dynamic_shared, shared);
#endif
  for (unsigned k = 0; k < grid.x && failure.empty(); ++k) {
    blockIdx = dim3(settings.reverse ? grid.x - 1 - k : k, 0, 0);
    std::memset(dynamic_shared, 0xff, shared);
    run_block(threads);
  }
  if (failure.empty()) return cudaSuccess;
  fibres.clear();  // waiting fibres cannot continue
  return cudaErrorLaunchFailure;
}

}  // namespace cuda_emulation

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& settings = cuda_emulation::settings;
  *value = static_cast<int>(attribute == cudaDevAttrMaxGridDimX ? settings.max_blocks : settings.max_shared);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorLaunchFailure: return cuda_emulation::failure.c_str();
  }
  return "unrecognized error code";
}
