// SPDX-License-Identifier: Apache-2.0
// Softmax over the taps of one filter.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_SOFTMAX_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_SOFTMAX_CUH_

#include "cuda/device.cuh"

namespace keras_dynfilter::cuda {

// The normalisation of one filter: p = exp(logit - maximum) * scale.
template <typename A>
struct Softmax {
  A maximum, scale;
};

__device__ inline float exponential(float value) { return expf(value); }
__device__ inline double exponential(double value) { return exp(value); }

// The sum over `lanes` neighbouring threads of a warp, a power of two. All threads get the same bits.
template <typename A>
__device__ inline A sum_over_lanes(A value, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullWarp, value, offset);
  return value;
}

// The softmax of the filter at `logits`, computed by `lanes` neighbouring threads. All threads of the warp must call
// it.
template <typename T>
__device__ inline Softmax<Accumulator<T>> softmax_of(const T* logits, int64_t taps, int lane, int lanes) {
  using A = Accumulator<T>;
  A maximum = -INFINITY;
  for (int64_t t = lane; t < taps; t += lanes) {
    const A logit = widen(logits[t]);
    maximum = logit > maximum ? logit : maximum;
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, maximum, offset);
    maximum = other > maximum ? other : maximum;
  }
  A sum = 0;
  for (int64_t t = lane; t < taps; t += lanes) sum += exponential(widen(logits[t]) - maximum);
  return {maximum, 1 / sum_over_lanes(sum, lanes)};
}

// The softmax of the filter at `logits`, computed by one thread.
template <typename T>
__device__ inline Softmax<Accumulator<T>> softmax_of(const T* logits, int64_t taps) {
  return softmax_of(logits, taps, 0, 1);
}

// The spatial factor of a tap, normalised if kNormalize.
template <bool kNormalize, typename T>
__device__ inline Accumulator<T> filter_value(const T* filter, int64_t tap, const Softmax<Accumulator<T>>& softmax) {
  const Accumulator<T> value = widen(filter[tap]);
  if constexpr (kNormalize) return exponential(value - softmax.maximum) * softmax.scale;
  return value;
}

// Computes the softmax of every filter, for kernels that read each filter once per tap. Threads are along the taps.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(Geometry geometry, const T* spatial, Softmax<Accumulator<T>>* softmax, int lanes) {
  const int64_t filters = geometry.filters(), per_block = blockDim.x / lanes;
  const int lane = threadIdx.x % lanes;
  for (int64_t first = blockIdx.x * per_block; first < filters; first += gridDim.x * per_block) {
    const int64_t filter = first + threadIdx.x / lanes;
    const int64_t read = min(filter, filters - 1);  // idle threads take part in the shuffles
    const Softmax<Accumulator<T>> result = softmax_of(spatial + read * geometry.taps, geometry.taps, lane, lanes);
    if (filter < filters && lane == 0) softmax[filter] = result;
  }
}

// The smallest power of two that is at least `work`, but at most a warp.
inline int lanes_for(int64_t work) {
  int lanes = 1;
  while (lanes < kWarpSize && lanes < work) lanes *= 2;
  return lanes;
}

template <typename T>
cudaError_t run_softmax(const Call& call, const Operands<T>& operands) {
  const int lanes = lanes_for(ceil_div(call.geometry.taps, kTapsPerLane));
  return launch(call, softmax_kernel<T>, ceil_div(call.geometry.filters(), kThreads / lanes), dim3(kThreads), 0,
                call.geometry, operands.spatial, static_cast<Softmax<Accumulator<T>>*>(operands.workspace), lanes);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_SOFTMAX_CUH_
