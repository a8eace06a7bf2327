// SPDX-License-Identifier: Apache-2.0
// Kernels for spatial filters over few channels per head. A thread has one filter or, in the gradient with respect to
// the inputs, one head of one pixel.
//
// Most of the memory traffic is filters, and the filters of neighbouring threads are adjacent in memory. A block copies
// them through shared memory in whole memory lines. Windows have an odd number of taps, so threads that read the same
// tap of their filters never use the same bank. The softmax is computed in shared memory, so logits are read once. If
// the filters do not fit shared memory, `choose_kernel` chooses a kernel with threads along the channels.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_FILTER_PER_THREAD_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_FILTER_PER_THREAD_CUH_

#include "cuda/kernels/softmax.cuh"

namespace keras_dynfilter::cuda {

// The position of the output of a filter, and the first channel of its head.
struct Place {
  int64_t head, column, row, sample, pixel, channel;
};

__device__ inline Place place_of(const Geometry& geometry, int64_t filter) {
  Place place;
  place.head = divmod(filter, geometry.heads);
  place.pixel = filter;
  place.column = divmod(filter, geometry.columns.out_size);
  place.row = divmod(filter, geometry.rows.out_size);
  place.sample = filter;
  place.channel = place.head * geometry.head_channels;
  return place;
}

template <typename T>
__device__ inline void copy_in(const T* from, int64_t count, Accumulator<T>* to) {
#pragma unroll 8
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x) to[k] = widen(from[k]);
}

template <typename A>
__device__ inline void normalize(A* filter, int64_t taps) {
  const Softmax<A> softmax = softmax_of(filter, taps);
  for (int64_t t = 0; t < taps; ++t) filter[t] = filter_value<true>(filter, t, softmax);
}

template <typename T, FilterKind kKind, int kMaxChannels>
__global__ void __launch_bounds__(kFilterThreads) filters_output_kernel(Geometry geometry, Operands<T> operands) {
  using A = Accumulator<T>;
  A* filters = shared_memory<A>();
  const int64_t taps = geometry.taps, total = geometry.filters();
  for (int64_t first = int64_t{blockIdx.x} * blockDim.x; first < total; first += int64_t{gridDim.x} * blockDim.x) {
    const int64_t count = min(blockDim.x, total - first);
    copy_in(operands.spatial + first * taps, count * taps, filters);
    __syncthreads();
    if (threadIdx.x < count) {
      A* filter = filters + threadIdx.x * taps;
      if constexpr (kKind == FilterKind::kSoftmax) normalize(filter, taps);
      const Place place = place_of(geometry, first + threadIdx.x);
      A sums[kMaxChannels] = {};
      for (int64_t u = 0; u < geometry.rows.window; ++u) {
        int64_t y, x;
        if (!find_source<true>(geometry.rows, place.row, u, &y)) continue;
        const int64_t line = (place.sample * geometry.rows.size + y) * geometry.columns.size;
        for (int64_t v = 0; v < geometry.columns.window; ++v) {
          if (!find_source<true>(geometry.columns, place.column, v, &x)) continue;
          const int64_t tap = u * geometry.columns.window + v;
          const T* inputs = operands.inputs + (line + x) * geometry.channels + place.channel;
#pragma unroll
          for (int c = 0; c < kMaxChannels; ++c) {
            if (kMaxChannels > 1 && c >= geometry.head_channels) continue;
            A channel = 0;
            if constexpr (kUsesChannel<kKind>) {
              channel = widen(operands.channel[(place.sample * taps + tap) * geometry.channels + place.channel + c]);
            }
            sums[c] += combine<kKind>(filter[tap], channel) * widen(inputs[c]);
          }
        }
      }
      T* result = operands.result + place.pixel * geometry.channels + place.channel;
#pragma unroll
      for (int c = 0; c < kMaxChannels; ++c) {
        if (c < geometry.head_channels) narrow(sums[c], result + c);
      }
    }
    __syncthreads();
  }
}

template <typename T, FilterKind kKind, int kMaxChannels>
__global__ void __launch_bounds__(kFilterThreads) filters_spatial_kernel(Geometry geometry, Operands<T> operands) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kKind == FilterKind::kSoftmax;
  A* filters = shared_memory<A>();
  const int64_t taps = geometry.taps, total = geometry.filters();
  for (int64_t first = int64_t{blockIdx.x} * blockDim.x; first < total; first += int64_t{gridDim.x} * blockDim.x) {
    const int64_t count = min(blockDim.x, total - first);
    if constexpr (kNormalize) {
      copy_in(operands.spatial + first * taps, count * taps, filters);
      __syncthreads();
    }
    if (threadIdx.x < count) {
      A* filter = filters + threadIdx.x * taps;
      if constexpr (kNormalize) normalize(filter, taps);
      const Place place = place_of(geometry, first + threadIdx.x);
      A grad[kMaxChannels] = {}, mean = 0;
#pragma unroll
      for (int c = 0; c < kMaxChannels; ++c) {
        if (c < geometry.head_channels) {
          grad[c] = widen(operands.grad[place.pixel * geometry.channels + place.channel + c]);
        }
      }
      // The gradient with respect to logits needs the mean over all taps first. Computing the products twice is cheaper
      // than storing them.
      for (int pass = kNormalize ? 0 : 1; pass < 2; ++pass) {
        for (int64_t u = 0; u < geometry.rows.window; ++u) {
          int64_t y, x;
          const bool row_inside = find_source<true>(geometry.rows, place.row, u, &y);
          const int64_t line = (place.sample * geometry.rows.size + y) * geometry.columns.size;
          for (int64_t v = 0; v < geometry.columns.window; ++v) {
            const int64_t tap = u * geometry.columns.window + v;
            A sum = 0;
            if (row_inside && find_source<true>(geometry.columns, place.column, v, &x)) {
              const T* inputs = operands.inputs + (line + x) * geometry.channels + place.channel;
#pragma unroll
              for (int c = 0; c < kMaxChannels; ++c) {
                if (kMaxChannels > 1 && c >= geometry.head_channels) continue;
                A factor = grad[c];
                if constexpr (kKind == FilterKind::kMul) {
                  factor *=
                      widen(operands.channel[(place.sample * taps + tap) * geometry.channels + place.channel + c]);
                }
                sum += factor * widen(inputs[c]);
              }
            }
            if (pass == 0) {
              mean += filter[tap] * sum;
            } else {
              filter[tap] = kNormalize ? filter[tap] * (sum - mean) : sum;
            }
          }
        }
      }
    }
    __syncthreads();
    T* result = operands.result + first * taps;
    for (int64_t k = threadIdx.x; k < count * taps; k += blockDim.x) narrow(filters[k], result + k);
    __syncthreads();
  }
}

struct FilterTiles {
  int64_t heads, columns;
};

// The threads of a block have neighbouring heads (x) and neighbouring columns of an input row (y). For each row of the
// window, the block copies this row of all filters that use its inputs to shared memory.
template <typename T, FilterKind kKind, int kMaxChannels>
__global__ void __launch_bounds__(kFilterThreads)
    filters_inputs_kernel(Geometry geometry, Operands<T> operands, FilterTiles tiles) {
  using A = Accumulator<T>;
  A* filters = shared_memory<A>();
  const auto* softmax = static_cast<const Softmax<A>*>(operands.workspace);
  const Axis& columns = geometry.columns;
  const int64_t taps = geometry.taps, window = columns.window;
  const int64_t count = tiles.heads * tiles.columns * geometry.rows.size * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t first_head = divmod(rest, tiles.heads) * blockDim.x;
    const int64_t first_column = divmod(rest, tiles.columns) * blockDim.y;
    const int64_t row = divmod(rest, geometry.rows.size);
    const int64_t sample = rest;
    const int64_t heads = min(blockDim.x, geometry.heads - first_head);
    const int64_t column = first_column + threadIdx.y;
    const bool active = threadIdx.x < heads && column < columns.size;
    const int64_t channel = (first_head + threadIdx.x) * geometry.head_channels;

    // The windows of the output columns from `first` to `last` may contain a pixel of the tile.
    const int64_t before = first_column + columns.pad - (window - 1) * columns.dilation;
    const int64_t first = before > 0 ? ceil_div(before, columns.stride) : 0;
    const int64_t last = min(columns.out_size - 1, (first_column + blockDim.y - 1 + columns.pad) / columns.stride);
    const int64_t elements = max(0, last - first + 1) * heads * window;

    A sums[kMaxChannels] = {};
    for (int64_t u = geometry.tap_rows.begin; u < geometry.tap_rows.end; ++u) {
      int64_t output_row, output_column;
      if (!find_source<false>(geometry.rows, row, u, &output_row)) continue;
      const int64_t line = (sample * geometry.rows.out_size + output_row) * columns.out_size;
      for (int64_t k = threadIdx.y * blockDim.x + threadIdx.x; k < elements; k += blockDim.x * blockDim.y) {
        int64_t index = k;
        const int64_t v = divmod(index, window);
        const int64_t head = first_head + divmod(index, heads);
        const int64_t filter = (line + first + index) * geometry.heads + head;
        Softmax<A> scale = {};
        if constexpr (kKind == FilterKind::kSoftmax) scale = softmax[filter];
        filters[k] =
            filter_value<kKind == FilterKind::kSoftmax>(operands.spatial + filter * taps, u * window + v, scale);
      }
      __syncthreads();
      for (int64_t v = geometry.tap_columns.begin; active && v < geometry.tap_columns.end; ++v) {
        if (!find_source<false>(columns, column, v, &output_column)) continue;
        const A spatial = filters[((output_column - first) * heads + threadIdx.x) * window + v];
        const T* grad = operands.grad + (line + output_column) * geometry.channels + channel;
#pragma unroll
        for (int c = 0; c < kMaxChannels; ++c) {
          if (kMaxChannels > 1 && c >= geometry.head_channels) continue;
          A factor = 0;
          if constexpr (kUsesChannel<kKind>) {
            const int64_t tap = sample * taps + u * window + v;
            factor = widen(operands.channel[tap * geometry.channels + channel + c]);
          }
          sums[c] += combine<kKind>(spatial, factor) * widen(grad[c]);
        }
      }
      __syncthreads();
    }
    if (!active) continue;
    T* result =
        operands.result + ((sample * geometry.rows.size + row) * columns.size + column) * geometry.channels + channel;
#pragma unroll
    for (int c = 0; c < kMaxChannels; ++c) {
      if (c < geometry.head_channels) narrow(sums[c], result + c);
    }
  }
}

template <typename T, FilterKind kKind, Derivative kDerivative, int kMaxChannels>
cudaError_t launch_filter_per_thread(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const Choice& choice = call.choice;
  const dim3 threads(static_cast<unsigned>(choice.threads_x), static_cast<unsigned>(choice.threads_y));
  if constexpr (kDerivative == Derivative::kInputs) {
    const FilterTiles tiles = {ceil_div(geometry.heads, choice.threads_x),
                               ceil_div(geometry.columns.size, choice.threads_y)};
    const int64_t blocks = tiles.heads * tiles.columns * geometry.rows.size * geometry.batch;
    return launch(call, filters_inputs_kernel<T, kKind, kMaxChannels>, blocks, threads, choice.shared_bytes, geometry,
                  operands, tiles);
  } else {
    const auto kernel = [] {
      if constexpr (kDerivative == Derivative::kOutput) return filters_output_kernel<T, kKind, kMaxChannels>;
      if constexpr (kDerivative == Derivative::kSpatial) return filters_spatial_kernel<T, kKind, kMaxChannels>;
    }();
    return launch(call, kernel, ceil_div(geometry.filters(), choice.threads_x), threads, choice.shared_bytes, geometry,
                  operands);
  }
}

template <typename T, FilterKind kKind, Derivative kDerivative>
cudaError_t run_filter_per_thread(const Call& call, const Operands<T>& operands) {
  switch (call.choice.max_channels) {
    case 1: return launch_filter_per_thread<T, kKind, kDerivative, 1>(call, operands);
    case 4: return launch_filter_per_thread<T, kKind, kDerivative, 4>(call, operands);
    default: return launch_filter_per_thread<T, kKind, kDerivative, 16>(call, operands);
  }
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_FILTER_PER_THREAD_CUH_
