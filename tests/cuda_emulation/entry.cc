// SPDX-License-Identifier: Apache-2.0
// What the tests call: C functions for ctypes, and a program for runs under sanitizers, where every operand is an
// allocation of its own, of exactly its size.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "filter.h"

using keras_dynfilter::Buffers;
using keras_dynfilter::Problem;

extern "C" {

int64_t emulation_problem_fields() { return keras_dynfilter::kProblemFields; }

int64_t emulation_workspace_bytes(const Problem* problem) {
  return static_cast<int64_t>(keras_dynfilter::cuda::workspace_bytes(*problem));
}

const char* emulation_run(const Problem* problem, const Buffers* buffers, int64_t max_blocks, int64_t max_shared,
                          int64_t reverse) {
  cuda_emulation::settings = {max_blocks, max_shared, reverse};
  return keras_dynfilter::cuda::run(*problem, *buffers, nullptr);
}

}  // extern "C"

namespace {

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};
using Block = std::unique_ptr<void, Free>;

Block allocate(int64_t bytes) {
  return Block(bytes == 0 ? nullptr : std::aligned_alloc(64, (bytes + 63) / 64 * 64));
}

}  // namespace

