// SPDX-License-Identifier: Apache-2.0
// The entry points for the tests of the emulation itself: a kernel with deliberate mistakes, and the conversions.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace keras_dynfilter::cuda {
extern unsigned char dynamic_shared[];
}

namespace {

enum Mistake { kNone, kBarrierInBranch, kEarlyExit, kMissingLanes, kTooMuchShared, kTooManyThreads };

void mistaken_kernel(int mistake, float* sums) {
  float sum = static_cast<float>(threadIdx.x);
  if (mistake == kBarrierInBranch && threadIdx.x < 7) __syncthreads();
  if (mistake == kEarlyExit && threadIdx.x == 3) return;
  if (mistake == kMissingLanes && threadIdx.x >= 32) sum += __shfl_sync(0xffffffffu, sum, 0);
  __syncthreads();
  if (mistake == kMissingLanes && threadIdx.x < 9) sum += __shfl_sync(0xffffffffu, sum, 0);
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_down_sync(0xffffffffu, sum, 2);
  sums[threadIdx.x] = sum;
}

void reading_kernel(float* value) { std::memcpy(value, keras_dynfilter::cuda::dynamic_shared, sizeof(float)); }

}  // namespace

extern "C" {

const char* emulation_make_mistake(int mistake) {
  cuda_emulation::settings = {2147483647, 227 * 1024, 0};
  float sums[64];
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(mistake == kTooManyThreads ? 1025 : 64);
  config.dynamicSmemBytes = mistake == kTooMuchShared ? 64 * 1024 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, mistaken_kernel, mistake, sums);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  for (int k = 0; k < 64; k += 2) {
    const int next = k % 32 == 30 ? k : k + 2;  // beyond the warp, a shuffle returns the value of the caller
    if (sums[k] != static_cast<float>(2 * k + 1 + 2 * next + 1)) return "a shuffle gave a wrong value";
  }
  return nullptr;
}

int emulation_reads_unwritten_shared_memory() {
  float value = 0;
  cudaLaunchConfig_t config = {};
  config.dynamicSmemBytes = sizeof(value);
  return cudaLaunchKernelEx(&config, reading_kernel, &value) == cudaSuccess && std::isnan(value);
}

void emulation_widen(int half, const uint16_t* from, float* to, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    to[k] = half ? __half2float(__half{from[k]}) : __bfloat162float(__nv_bfloat16{from[k]});
  }
}

void emulation_narrow(int half, const float* from, uint16_t* to, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    to[k] = half ? __float2half_rn(from[k]).bits : __float2bfloat16_rn(from[k]).bits;
  }
}

}  // extern "C"
