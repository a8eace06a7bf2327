// SPDX-License-Identifier: Apache-2.0
// The entry points for the tests: C functions for ctypes, and a program that runs under sanitizers. The program
// allocates every operand separately and with its exact size, so that sanitizers detect every access beyond an operand.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cuda/choose_kernel.cuh"
#include "family.h"

using keras_dynfilter::Buffers;
using keras_dynfilter::Problem;

extern "C" {

int64_t emulation_problem_fields() { return keras_dynfilter::kProblemFields; }

int64_t emulation_workspace_bytes(const Problem* problem) {
  return static_cast<int64_t>(keras_dynfilter::cuda::workspace_bytes(*problem));
}

const char* emulation_choose_kernel(const Problem* problem, int64_t alignment, int64_t max_shared, int* options) {
  const auto choice = keras_dynfilter::cuda::choose_kernel(*problem, alignment, static_cast<size_t>(max_shared));
  options[0] = choice.vec_elems;
  options[1] = choice.window_cols;
  options[2] = choice.max_channels;
  return keras_dynfilter::cuda::kernel_name(choice.kernel);
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
  Block block(bytes == 0 ? nullptr : std::malloc(bytes));
  if (block) std::memset(block.get(), 0xff, bytes);  // NaN, so that tests detect values that were not written
  return block;
}

void read(std::FILE* file, void* to, size_t bytes) {
  if (bytes > 0 && std::fread(to, 1, bytes, file) != bytes) std::exit(3);
}

}  // namespace

// The first file contains the cases. Each case has the problem, max_blocks, max_shared, reverse, the numbers of bytes
// of inputs, spatial, channel, grad and result, and the four operands. The program writes the results to the second
// file.
int main(int count, char** arguments) {
  std::FILE* cases = count == 3 ? std::fopen(arguments[1], "rb") : nullptr;
  std::FILE* results = count == 3 ? std::fopen(arguments[2], "wb") : nullptr;
  if (cases == nullptr || results == nullptr) return 2;
  Problem problem;
  while (std::fread(&problem, sizeof(problem), 1, cases) == 1) {
    int64_t settings[3], bytes[5];
    read(cases, settings, sizeof(settings));
    read(cases, bytes, sizeof(bytes));
    Block operands[5], workspace = allocate(emulation_workspace_bytes(&problem));
    for (int k = 0; k < 5; ++k) {
      operands[k] = allocate(bytes[k]);
      if (k < 4) read(cases, operands[k].get(), bytes[k]);
    }
    const Buffers buffers = {operands[0].get(), operands[1].get(), operands[2].get(),
                             operands[3].get(), operands[4].get(), workspace.get()};
    const char* failure = emulation_run(&problem, &buffers, settings[0], settings[1], settings[2]);
    if (failure != nullptr) {
      std::fprintf(stderr, "run: %s\n", failure);
      return 1;
    }
    if (bytes[4] > 0) std::fwrite(operands[4].get(), 1, bytes[4], results);
  }
  std::fclose(cases);
  return std::fclose(results) == 0 ? 0 : 2;
}
