// SPDX-License-Identifier: Apache-2.0
// A CUDA runtime on the CPU, for tests. It implements the parts of the CUDA language and API that the kernels of this
// project use. With this folder instead of the headers of the CUDA toolkit, the sources of the kernels compile
// unchanged as C++.
//
// Blocks run one at a time. Their threads are fibres that switch at barriers and shuffles. Dynamic shared memory is
// filled with NaN before every block. Behaviour that is undefined on a GPU is an error here: barriers that some threads
// do not reach, shuffles with missing lanes, and accesses beyond the requested shared memory (under AddressSanitizer).
// There is no static shared memory: `__shared__` works for `extern` arrays only.
#ifndef CUDA_EMULATION_CUDA_RUNTIME_H_
#define CUDA_EMULATION_CUDA_RUNTIME_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern dim3 gridDim, blockDim, blockIdx, threadIdx;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidConfiguration, cudaErrorLaunchFailure };
enum cudaDeviceAttr { cudaDevAttrMaxGridDimX, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
typedef struct CUstream_st* cudaStream_t;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
const char* cudaGetErrorString(cudaError_t error);

namespace cuda_emulation {

// The limits of the device, and the order in which threads and blocks run.
struct Settings {
  int64_t max_blocks, max_shared, reverse;
};
extern Settings settings;

void allow_shared(const void* kernel, size_t bytes);
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread);
void barrier(int line);
uint64_t exchange(unsigned mask, uint64_t value, unsigned lane,
                  int line);  // returns the value of `lane` of the same warp
unsigned lane();

template <typename T>
T shuffle(unsigned mask, T value, unsigned lane, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, lane, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace cuda_emulation

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes > cuda_emulation::settings.max_shared) return cudaErrorInvalidValue;
  cuda_emulation::allow_shared(reinterpret_cast<const void*>(kernel), bytes);
  return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  return cuda_emulation::launch(*config, reinterpret_cast<const void*>(kernel), [=] { kernel(arguments...); });
}

template <typename T>
void __stwb(T* to, T value) {
  *to = value;
}

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulation::barrier(line); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset, int line = __builtin_LINE()) {
  return cuda_emulation::shuffle(mask, value, cuda_emulation::lane() ^ offset, line);
}

// Returns the value of the caller if the lane is beyond the warp.
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, int line = __builtin_LINE()) {
  const unsigned lane = cuda_emulation::lane();
  return cuda_emulation::shuffle(mask, value, lane + offset < 32 ? lane + offset : lane, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  return cuda_emulation::shuffle(mask, value, lane % 32, line);
}

#endif  // CUDA_EMULATION_CUDA_RUNTIME_H_
