// SPDX-License-Identifier: Apache-2.0
// What every kernel of the family shares: types, vector loads, the geometry of a call, and the way to launch.
#ifndef KERAS_DYNFILTER_CUDA_DEVICE_CUH_
#define KERAS_DYNFILTER_CUDA_DEVICE_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "filter.h"

namespace keras_dynfilter::cuda {

inline constexpr int kThreads = 256;  // most threads a block has
inline constexpr size_t kDefaultShared = 48 * 1024;

template <Weight kWeight>
inline constexpr bool kUsesSpatial = uses_spatial(kWeight);
template <Weight kWeight>
inline constexpr bool kUsesChannel = uses_channel(kWeight);

template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void narrow(float value, float* to) { *to = value; }
__device__ inline void narrow(double value, double* to) { *to = value; }
__device__ inline void narrow(float value, __half* to) { *to = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

// What moves so many bytes in one access. Plain stores of structures can end up as one store per element.
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

template <typename T, int kWidth>
using Bits = typename BitsOf<sizeof(T) * kWidth>::type;

// A load in two steps, so that several can be under way before the first is needed.
template <int kWidth, typename T>
__device__ inline Bits<T, kWidth> fetch(const T* from) {
  return *reinterpret_cast<const Bits<T, kWidth>*>(from);
}

template <typename T, int kWidth>
__device__ inline void unpack(const Bits<T, kWidth>& bits, Accumulator<T> (&to)[kWidth]) {
  T values[kWidth];
  memcpy(values, &bits, sizeof(bits));
#pragma unroll
  for (int w = 0; w < kWidth; ++w) to[w] = widen(values[w]);
}

template <typename T, int kWidth>
__device__ inline void load(const T* from, Accumulator<T> (&to)[kWidth]) {
  unpack<T>(fetch<kWidth>(from), to);
}

template <typename T, int kWidth>
__device__ inline void store(const Accumulator<T> (&from)[kWidth], T* to) {
  T values[kWidth];
#pragma unroll
  for (int w = 0; w < kWidth; ++w) narrow(from[w], &values[w]);
  Bits<T, kWidth> bits;
  memcpy(&bits, values, sizeof(bits));
  __stwb(reinterpret_cast<Bits<T, kWidth>*>(to), bits);
}

template <Weight kWeight, typename A>
__device__ inline A combine(A spatial, A channel) {
  if constexpr (kWeight == Weight::kMul) return spatial * channel;
  if constexpr (kWeight == Weight::kAdd) return spatial + channel;
  if constexpr (kWeight == Weight::kChannel) return channel;
  return spatial;
}

__host__ __device__ inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
__host__ __device__ inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a >= 0

// Splits the coordinate that varies fastest off a linear index.
__device__ inline int64_t take(int64_t& index, int64_t size) {
  const int64_t coordinate = index % size;
  index /= size;
  return coordinate;
}

struct Axis {
  int64_t inputs, outputs, window, stride, dilation, pad;
};

// Where `tap` of a window meets the source: for an output (kForward) the input it reads, for an input the output that
// reads it. False where there is none.
template <bool kForward>
__device__ inline bool find_source(const Axis& axis, int64_t position, int64_t tap, int64_t* source) {
  if constexpr (kForward) {
    *source = position * axis.stride + tap * axis.dilation - axis.pad;
    return *source >= 0 && *source < axis.inputs;
  } else {
    const int64_t origin = position + axis.pad - tap * axis.dilation;
    if (origin < 0) return false;
    *source = axis.stride == 1 ? origin : origin / axis.stride;
    return *source * axis.stride == origin && *source < axis.outputs;
  }
}

struct Geometry {
  int64_t batch, channels, heads, head_channels, taps;
  Axis rows, columns;

  __host__ __device__ int64_t outputs() const { return rows.outputs * columns.outputs; }
  __host__ __device__ int64_t filters() const { return batch * outputs() * heads; }
};

template <typename T>
struct Operands {
  const T* inputs;
  const T* spatial;
  const T* channel;
  const T* grad;
  T* result;
  void* workspace;
};

// One call on its way to the device.
struct Call {
  Geometry geometry;
  cudaStream_t stream;
  int64_t most_blocks;
  size_t most_shared;  // bytes a block may ask for
};

template <typename A>
__device__ inline A* shared_memory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<A*>(dynamic_shared);
}

// Kernels walk over `blocks` units of work with a stride of the grid, so that any number of units fits.
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
    config.gridDim = dim3(static_cast<unsigned>(least(blocks, call.most_blocks)));
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = call.stream;
    error = cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  if (error != cudaSuccess) cudaGetLastError();  // reported by us, so not left for the next caller to find
  return error;
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_DEVICE_CUH_
