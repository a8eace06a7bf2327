// SPDX-License-Identifier: Apache-2.0
// The gradient by the spatial filters, with lanes along the channels of a head. Valid for every problem.
//
// A filter belongs to a group of neighbouring lanes, as many as its head has packs of channels (a warp at most). They
// form the products of a few taps at a time and add them up by shuffles. The gradient by logits needs the sum over all
// taps before it can write any: windows that do not fit the registers are gone through twice.
#ifndef KERAS_DYNFILTER_CUDA_SPATIAL_CUH_
#define KERAS_DYNFILTER_CUDA_SPATIAL_CUH_

#include "cuda/softmax.cuh"
#include "cuda/tap_tile.cuh"

namespace keras_dynfilter::cuda {

// Sums of grad * inputs (* channel) over the channels of one head, for the taps from `first` on.
template <Weight kWeight, int kWidth, typename T>
__device__ inline void correlate(const Geometry& geometry, const T* grad, const T* inputs, const T* channel,
                                 const int64_t (&pixels)[kTapTile], int lane, int lanes,
                                 Accumulator<T> (&sums)[kTapTile]) {
  using A = Accumulator<T>;
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) sums[k] = 0;
  for (int64_t c = lane * kWidth; c < geometry.head_channels; c += lanes * kWidth) {
    A above[kWidth];
    load(grad + c, above);
#pragma unroll
    for (int begin = 0; begin < kTapTile; begin += kTapsInFlight) {
      Bits<T, kWidth> pixel[kTapsInFlight] = {}, factor[kTapsInFlight] = {};
#pragma unroll
      for (int k = 0; k < kTapsInFlight; ++k) {
        if (pixels[begin + k] < 0) continue;
        pixel[k] = fetch<kWidth>(inputs + pixels[begin + k] * geometry.channels + c);
        if constexpr (kWeight == Weight::kMul) {
          factor[k] = fetch<kWidth>(channel + (begin + k) * geometry.channels + c);
        }
      }
#pragma unroll
      for (int k = 0; k < kTapsInFlight; ++k) {
        if (pixels[begin + k] < 0) continue;
        A below[kWidth], by[kWidth];
        unpack<T>(pixel[k], below);
        if constexpr (kWeight == Weight::kMul) unpack<T>(factor[k], by);
#pragma unroll
        for (int w = 0; w < kWidth; ++w) {
          if constexpr (kWeight == Weight::kMul) {
            sums[begin + k] += above[w] * by[w] * below[w];
          } else {
            sums[begin + k] += above[w] * below[w];
          }
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) sums[k] = sum_over_lanes(sums[k], lanes);
}

template <typename T, Weight kWeight, int kWindow, int kWidth>
__global__ void __launch_bounds__(kThreads) spatial_kernel(Geometry geometry, Operands<T> operands, int lanes) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kWeight == Weight::kSoftmax;
  const int64_t filters = geometry.filters(), taps = geometry.taps, per_block = blockDim.x / lanes;
  const int64_t image = geometry.rows.inputs * geometry.columns.inputs;
  const int lane = threadIdx.x % lanes;
  for (int64_t first = blockIdx.x * per_block; first < filters; first += gridDim.x * per_block) {
    const bool writes = first + threadIdx.x / lanes < filters;
    const int64_t filter = least(first + threadIdx.x / lanes, filters - 1);  // idle threads follow, for the shuffles
    int64_t rest = filter;
    const int64_t head = take(rest, geometry.heads);
    const int64_t pixel = rest;
    const int64_t column = take(rest, geometry.columns.outputs);
    const int64_t row = take(rest, geometry.rows.outputs);
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
          find_pixels<kWindow>(geometry, row, column, tap, pixels);
          const T* factors = nullptr;
          if constexpr (kWeight == Weight::kMul) {
            factors = operands.channel + (sample * taps + tap) * geometry.channels + channel;
          }
          correlate<kWeight, kWidth>(geometry, grad, inputs, factors, pixels, lane, lanes, sums);
        }
#pragma unroll
        for (int k = 0; k < kTapTile; ++k) {
          if (tap + k >= taps) continue;
          A value = sums[k];
          if constexpr (kNormalize) {
            const A weight = weight_at<true>(operands.spatial + filter * taps, tap + k, softmax);
            if (pass == 0) mean += weight * value;
            value = weight * (value - mean);
          }
          if (pass == 1 && writes && k % lanes == lane) narrow(value, operands.result + filter * taps + tap + k);
        }
      }
    }
  }
}

template <typename T, Weight kWeight, int kWidth>
cudaError_t run_spatial(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const int lanes = lanes_for(ceil_div(geometry.head_channels, kWidth));
  const int64_t blocks = ceil_div(geometry.filters(), kThreads / lanes);
  const auto kernel = is_3x3(geometry) ? spatial_kernel<T, kWeight, 3, kWidth> : spatial_kernel<T, kWeight, 0, kWidth>;
  return launch(call, kernel, blocks, dim3(kThreads), 0, geometry, operands, lanes);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_SPATIAL_CUH_
