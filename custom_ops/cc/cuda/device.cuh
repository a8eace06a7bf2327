// SPDX-License-Identifier: Apache-2.0
// Shared code of the CUDA kernels: conversions, vector loads and stores, operands, and the launch.
#ifndef KERAS_DYNFILTER_CUDA_DEVICE_CUH_
#define KERAS_DYNFILTER_CUDA_DEVICE_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/choose_kernel.cuh"
#include "cuda/tuning.cuh"
#include "family.h"

namespace keras_dynfilter::cuda {

template <FilterKind kKind>
inline constexpr bool kUsesSpatial = uses_spatial(kKind);
template <FilterKind kKind>
inline constexpr bool kUsesChannel = uses_channel(kKind);

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void narrow(float value, float* to) { *to = value; }
__device__ inline void narrow(double value, double* to) { *to = value; }
__device__ inline void narrow(float value, __half* to) { *to = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

// The type that moves kBytes bytes in one access. A structure is not enough, because the compiler may split its store
// into one store per element.
template <size_t kBytes>
struct BitsOf;
template <>
struct BitsOf<2> {
  using type = unsigned short;
};
template <>
struct BitsOf<4> {
  using type = unsigned;
};
template <>
struct BitsOf<8> {
  using type = uint2;
};
template <>
struct BitsOf<16> {
  using type = uint4;
};

template <typename T, int kVecElems>
using Bits = typename BitsOf<sizeof(T) * kVecElems>::type;

// The first step of a load; `unpack` is the second step. The steps are separate so that several loads can be in flight.
template <int kVecElems, typename T>
__device__ inline Bits<T, kVecElems> fetch(const T* from) {
  return *reinterpret_cast<const Bits<T, kVecElems>*>(from);
}

template <typename T, int kVecElems>
__device__ inline void unpack(const Bits<T, kVecElems>& bits, Accumulator<T> (&to)[kVecElems]) {
  T values[kVecElems];
  memcpy(values, &bits, sizeof(bits));
#pragma unroll
  for (int w = 0; w < kVecElems; ++w) to[w] = widen(values[w]);
}

template <typename T, int kVecElems>
__device__ inline void load(const T* from, Accumulator<T> (&to)[kVecElems]) {
  unpack<T>(fetch<kVecElems>(from), to);
}

template <typename T, int kVecElems>
__device__ inline void store(const Accumulator<T> (&from)[kVecElems], T* to) {
  T values[kVecElems];
#pragma unroll
  for (int w = 0; w < kVecElems; ++w) narrow(from[w], &values[w]);
  Bits<T, kVecElems> bits;
  memcpy(&bits, values, sizeof(bits));
  __stwb(reinterpret_cast<Bits<T, kVecElems>*>(to), bits);
}

template <FilterKind kKind, typename A>
__device__ inline A combine(A spatial, A channel) {
  if constexpr (kKind == FilterKind::kMul) return spatial * channel;
  if constexpr (kKind == FilterKind::kAdd) return spatial + channel;
  if constexpr (kKind == FilterKind::kChannel) return channel;
  return spatial;
}

KDF_HOST_DEVICE inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
KDF_HOST_DEVICE inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// Divides a linear index by `size` and returns the remainder, the coordinate that varies fastest.
__device__ inline int64_t divmod(int64_t& index, int64_t size) {
  const int64_t coordinate = index % size;
  index /= size;
  return coordinate;
}

// Finds the source position at `tap` of a window, along one axis: the input that an output reads (kForward), or the
// output that reads an input. Returns false if there is none.
template <bool kForward>
__device__ inline bool find_source(const Axis& axis, int64_t position, int64_t tap, int64_t* source) {
  if constexpr (kForward) {
    *source = position * axis.stride + tap * axis.dilation - axis.pad;
    return *source >= 0 && *source < axis.size;
  } else {
    const int64_t origin = position + axis.pad - tap * axis.dilation;
    if (origin < 0) return false;
    *source = axis.stride == 1 ? origin : origin / axis.stride;
    return *source * axis.stride == origin && *source < axis.out_size;
  }
}

template <typename T>
struct Operands {
  const T* inputs;
  const T* spatial;
  const T* channel;
  const T* grad;
  T* result;
  void* workspace;
};

// The sizes, the chosen kernel, the stream and the largest grid of one call.
struct Call {
  Geometry geometry;
  Choice choice;
  cudaStream_t stream;
  int64_t max_blocks;
};

template <typename A>
__device__ inline A* shared_memory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<A*>(dynamic_shared);
}

// Launches a kernel for `blocks` units of work. A kernel loops over the units with the size of the grid as the stride,
// so that any number of units is possible.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(const Call& call, void (*kernel)(Parameters...), int64_t blocks, dim3 threads, size_t shared,
                   Arguments... arguments) {
  if (blocks == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  if (shared > kDefaultShared) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(min(blocks, call.max_blocks)));
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = call.stream;
    error = cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  if (error != cudaSuccess) cudaGetLastError();  // clears the error, which the caller reports
  return error;
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_DEVICE_CUH_
