// SPDX-License-Identifier: Apache-2.0
// Computes the gradient with respect to the spatial filters, with threads along the channels of a head. Valid for every
// problem.
//
// A group of neighbouring threads computes the gradient of one filter, with one thread per `kVecElems` channels and at
// most a warp. For the taps of a tile, each thread adds up the products of its channels, and shuffles add up the sums
// of the threads. The gradient with respect to logits needs a sum over all taps before it can write any tap, so windows
// that are larger than a tile are computed twice.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_SPATIAL_GRADIENT_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_SPATIAL_GRADIENT_CUH_

#include "cuda/kernels/softmax.cuh"
#include "cuda/kernels/tap_tile.cuh"

namespace keras_dynfilter::cuda {

// Sums grad * inputs (* channel) over the channels of one head, for the taps of a tile.
template <FilterKind kKind, int kVecElems, typename T>
__device__ inline void correlate(const Geometry& geometry, const T* grad, const T* inputs, const T* channel,
                                 const int64_t (&pixels)[kTapTile], int lane, int lanes,
                                 Accumulator<T> (&sums)[kTapTile]) {
  using A = Accumulator<T>;
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) sums[k] = 0;
  bool inside = false;
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) inside |= pixels[k] >= 0;
  for (int64_t c = lane * kVecElems; inside && c < geometry.head_channels; c += lanes * kVecElems) {
    A upstream[kVecElems];
    load(grad + c, upstream);
#pragma unroll
    for (int begin = 0; begin < kTapTile; begin += kTapsInFlight) {
      Bits<T, kVecElems> pixels_in_flight[kTapsInFlight] = {}, factors_in_flight[kTapsInFlight] = {};
#pragma unroll
      for (int k = 0; k < kTapsInFlight; ++k) {
        if (pixels[begin + k] < 0) continue;
        pixels_in_flight[k] = fetch<kVecElems>(inputs + pixels[begin + k] * geometry.channels + c);
        if constexpr (kKind == FilterKind::kMul) {
          factors_in_flight[k] = fetch<kVecElems>(channel + (begin + k) * geometry.channels + c);
        }
      }
#pragma unroll
      for (int k = 0; k < kTapsInFlight; ++k) {
        if (pixels[begin + k] < 0) continue;
        A value[kVecElems], factor[kVecElems];
        unpack<T>(pixels_in_flight[k], value);
        if constexpr (kKind == FilterKind::kMul) unpack<T>(factors_in_flight[k], factor);
#pragma unroll
        for (int w = 0; w < kVecElems; ++w) {
          if constexpr (kKind == FilterKind::kMul) {
            sums[begin + k] += upstream[w] * factor[w] * value[w];
          } else {
            sums[begin + k] += upstream[w] * value[w];
          }
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) sums[k] = sum_over_lanes(sums[k], lanes);
}

template <typename T, FilterKind kKind, int kWindowCols, int kVecElems>
__global__ void __launch_bounds__(kThreads) spatial_kernel(Geometry geometry, Operands<T> operands, int lanes) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kKind == FilterKind::kSoftmax;
  const int64_t filters = geometry.filters(), taps = geometry.taps, per_block = blockDim.x / lanes;
  const int64_t image = geometry.rows.size * geometry.columns.size;
  const int lane = threadIdx.x % lanes;
  for (int64_t first = blockIdx.x * per_block; first < filters; first += gridDim.x * per_block) {
    const bool writes = first + threadIdx.x / lanes < filters;
    const int64_t filter = min(first + threadIdx.x / lanes, filters - 1);  // idle threads take part in the shuffles
    int64_t rest = filter;
    const int64_t head = divmod(rest, geometry.heads);
    const int64_t pixel = rest;
    const int64_t column = divmod(rest, geometry.columns.out_size);
    const int64_t row = divmod(rest, geometry.rows.out_size);
    const int64_t sample = rest;
    const int64_t channel = head * geometry.head_channels;
    const T* grad = operands.grad + pixel * geometry.channels + channel;
    const T* inputs = operands.inputs + sample * image * geometry.channels + channel;

    A sums[kTapTile], mean = 0;
    Softmax<A> softmax = {};
    if constexpr (kNormalize) softmax = softmax_of(operands.spatial + filter * taps, taps, lane, lanes);
    for (int pass = kNormalize ? 0 : 1; pass < 2; ++pass) {
      for (int64_t tap = 0; tap < taps; tap += kTapTile) {
        if (!kNormalize || pass == 0 || taps > kTapTile) {
          int64_t pixels[kTapTile];
          find_pixels<kWindowCols>(geometry, row, column, tap, pixels);
          const T* factors = nullptr;
          if constexpr (kKind == FilterKind::kMul) {
            factors = operands.channel + (sample * taps + tap) * geometry.channels + channel;
          }
          correlate<kKind, kVecElems>(geometry, grad, inputs, factors, pixels, lane, lanes, sums);
        }
#pragma unroll
        for (int k = 0; k < kTapTile; ++k) {
          if (tap + k >= taps) continue;
          A value = sums[k];
          if constexpr (kNormalize) {
            const A probability = filter_value<true>(operands.spatial + filter * taps, tap + k, softmax);
            if (pass == 0) mean += probability * value;
            value = probability * (value - mean);
          }
          if (pass == 1 && writes && k % lanes == lane) narrow(value, operands.result + filter * taps + tap + k);
        }
      }
    }
  }
}

template <typename T, FilterKind kKind, int kVecElems>
cudaError_t run_spatial(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const int lanes = lanes_for(ceil_div(geometry.head_channels, kVecElems));
  const int64_t blocks = ceil_div(geometry.filters(), kThreads / lanes);
  const auto kernel =
      call.choice.window_cols == 3 ? spatial_kernel<T, kKind, 3, kVecElems> : spatial_kernel<T, kKind, 0, kVecElems>;
  return launch(call, kernel, blocks, dim3(kThreads), 0, geometry, operands, lanes);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_SPATIAL_GRADIENT_CUH_
