// SPDX-License-Identifier: Apache-2.0
// Members that read or write spatial filters of few channels, with one filter per lane.
//
// Here the filters are most of the traffic, and those of neighbouring lanes lie behind one another in memory: a block
// moves them through shared memory in whole lines. Windows have an odd number of taps, so lanes that walk through
// their filters side by side never meet in a bank. Softmax happens in shared memory: logits are read once.
// Windows that do not fit are left to the kernels with lanes along the channels.
#ifndef KERAS_DYNFILTER_CUDA_FILTERS_CUH_
#define KERAS_DYNFILTER_CUDA_FILTERS_CUH_

#include "cuda/softmax.cuh"

namespace keras_dynfilter::cuda {

inline constexpr int64_t kFewChannels = 15;  // of a head; kChannels below is their number, rounded up to 1, 4 or 16
inline constexpr int kFilterThreads = 128;

// Where the output of a filter is, and where its head begins in the channels.
struct Place {
  int64_t head, column, row, sample, pixel, channel;
};

__device__ inline Place place_of(const Geometry& geometry, int64_t filter) {
  Place place;
  place.head = take(filter, geometry.heads);
  place.pixel = filter;
  place.column = take(filter, geometry.columns.outputs);
  place.row = take(filter, geometry.rows.outputs);
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
  for (int64_t t = 0; t < taps; ++t) filter[t] = weight_at<true>(filter, t, softmax);
}

template <typename T, Weight kWeight, int kChannels>
__global__ void __launch_bounds__(kFilterThreads) filters_output_kernel(Geometry geometry, Operands<T> operands) {
  using A = Accumulator<T>;
  A* filters = shared_memory<A>();
  const int64_t taps = geometry.taps, total = geometry.filters();
  for (int64_t first = int64_t{blockIdx.x} * blockDim.x; first < total; first += int64_t{gridDim.x} * blockDim.x) {
    const int64_t count = least(blockDim.x, total - first);
    copy_in(operands.spatial + first * taps, count * taps, filters);
    __syncthreads();
    if (threadIdx.x < count) {
      A* filter = filters + threadIdx.x * taps;
      if constexpr (kWeight == Weight::kSoftmax) normalize(filter, taps);
      const Place place = place_of(geometry, first + threadIdx.x);
      A sums[kChannels] = {};
      for (int64_t u = 0; u < geometry.rows.window; ++u) {
        int64_t y, x;
        if (!find_source<true>(geometry.rows, place.row, u, &y)) continue;
        const int64_t line = (place.sample * geometry.rows.inputs + y) * geometry.columns.inputs;
        for (int64_t v = 0; v < geometry.columns.window; ++v) {
          if (!find_source<true>(geometry.columns, place.column, v, &x)) continue;
          const int64_t tap = u * geometry.columns.window + v;
          const T* inputs = operands.inputs + (line + x) * geometry.channels + place.channel;
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            if (kChannels > 1 && c >= geometry.head_channels) continue;
            A channel = 0;
            if constexpr (kUsesChannel<kWeight>) {
              channel = widen(operands.channel[(place.sample * taps + tap) * geometry.channels + place.channel + c]);
            }
            sums[c] += combine<kWeight>(filter[tap], channel) * widen(inputs[c]);
          }
        }
      }
      T* result = operands.result + place.pixel * geometry.channels + place.channel;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (c < geometry.head_channels) narrow(sums[c], result + c);
      }
    }
    __syncthreads();
  }
}

template <typename T, Weight kWeight, int kChannels>
__global__ void __launch_bounds__(kFilterThreads) filters_spatial_kernel(Geometry geometry, Operands<T> operands) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kWeight == Weight::kSoftmax;
  A* filters = shared_memory<A>();
  const int64_t taps = geometry.taps, total = geometry.filters();
  for (int64_t first = int64_t{blockIdx.x} * blockDim.x; first < total; first += int64_t{gridDim.x} * blockDim.x) {
    const int64_t count = least(blockDim.x, total - first);
    if constexpr (kNormalize) {
      copy_in(operands.spatial + first * taps, count * taps, filters);
      __syncthreads();
    }
    if (threadIdx.x < count) {
      A* filter = filters + threadIdx.x * taps;
      if constexpr (kNormalize) normalize(filter, taps);
      const Place place = place_of(geometry, first + threadIdx.x);
      A grad[kChannels] = {}, mean = 0;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (c < geometry.head_channels) {
          grad[c] = widen(operands.grad[place.pixel * geometry.channels + place.channel + c]);
        }
      }
      // The gradient by logits needs the mean over all taps first: products are cheaper to form again than to keep.
      for (int pass = kNormalize ? 0 : 1; pass < 2; ++pass) {
        for (int64_t u = 0; u < geometry.rows.window; ++u) {
          int64_t y, x;
          const bool row_inside = find_source<true>(geometry.rows, place.row, u, &y);
          const int64_t line = (place.sample * geometry.rows.inputs + y) * geometry.columns.inputs;
          for (int64_t v = 0; v < geometry.columns.window; ++v) {
            const int64_t tap = u * geometry.columns.window + v;
            A sum = 0;
            if (row_inside && find_source<true>(geometry.columns, place.column, v, &x)) {
              const T* inputs = operands.inputs + (line + x) * geometry.channels + place.channel;
#pragma unroll
              for (int c = 0; c < kChannels; ++c) {
                if (kChannels > 1 && c >= geometry.head_channels) continue;
                A factor = grad[c];
                if constexpr (kWeight == Weight::kMul) {
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

// Lanes lie along the heads and then along the columns of a row of the inputs. For each row of the window, the block
// brings in that row of all filters which meet its inputs.
template <typename T, Weight kWeight, int kChannels>
__global__ void __launch_bounds__(kFilterThreads)
    filters_inputs_kernel(Geometry geometry, Operands<T> operands, FilterTiles tiles) {
  using A = Accumulator<T>;
  A* filters = shared_memory<A>();
  const auto* softmax = static_cast<const Softmax<A>*>(operands.workspace);
  const Axis& columns = geometry.columns;
  const int64_t taps = geometry.taps, window = columns.window;
  const int64_t count = tiles.heads * tiles.columns * geometry.rows.inputs * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t first_head = take(rest, tiles.heads) * blockDim.x;
    const int64_t first_column = take(rest, tiles.columns) * blockDim.y;
    const int64_t row = take(rest, geometry.rows.inputs);
    const int64_t sample = rest;
    const int64_t heads = least(blockDim.x, geometry.heads - first_head);
    const int64_t column = first_column + threadIdx.y;
    const bool active = threadIdx.x < heads && column < columns.inputs;
    const int64_t channel = (first_head + threadIdx.x) * geometry.head_channels;

    // The outputs in a row whose windows may meet the tile.
    const int64_t before = first_column + columns.pad - (window - 1) * columns.dilation;
    const int64_t first = before > 0 ? ceil_div(before, columns.stride) : 0;
    const int64_t last = least(columns.outputs - 1, (first_column + blockDim.y - 1 + columns.pad) / columns.stride);
    const int64_t elements = most(0, last - first + 1) * heads * window;

    A sums[kChannels] = {};
    for (int64_t u = 0; u < geometry.rows.window; ++u) {
      int64_t output_row, output_column;
      if (!find_source<false>(geometry.rows, row, u, &output_row)) continue;
      const int64_t line = (sample * geometry.rows.outputs + output_row) * columns.outputs;
      for (int64_t k = threadIdx.y * blockDim.x + threadIdx.x; k < elements; k += blockDim.x * blockDim.y) {
        int64_t index = k;
        const int64_t v = take(index, window);
        const int64_t head = first_head + take(index, heads);
        const int64_t filter = (line + first + index) * geometry.heads + head;
        Softmax<A> scale = {};
        if constexpr (kWeight == Weight::kSoftmax) scale = softmax[filter];
        filters[k] = weight_at<kWeight == Weight::kSoftmax>(operands.spatial + filter * taps, u * window + v, scale);
      }
      __syncthreads();
      for (int64_t v = 0; active && v < window; ++v) {
        if (!find_source<false>(columns, column, v, &output_column)) continue;
        const A spatial = filters[((output_column - first) * heads + threadIdx.x) * window + v];
        const T* grad = operands.grad + (line + output_column) * geometry.channels + channel;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          if (kChannels > 1 && c >= geometry.head_channels) continue;
          A factor = 0;
          if constexpr (kUsesChannel<kWeight>) {
            const int64_t tap = sample * taps + u * window + v;
            factor = widen(operands.channel[tap * geometry.channels + channel + c]);
          }
          sums[c] += combine<kWeight>(spatial, factor) * widen(grad[c]);
        }
      }
      __syncthreads();
    }
    if (!active) continue;
    T* result = operands.result +
                ((sample * geometry.rows.inputs + row) * columns.inputs + column) * geometry.channels + channel;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c < geometry.head_channels) narrow(sums[c], result + c);
    }
  }
}

// Bytes of shared memory for `threads` filters. In floating point, where sizes that fit nowhere do not overflow.
inline bool fits(const Call& call, double bytes) { return bytes <= static_cast<double>(call.most_shared); }

// Threads for the kernels that keep whole filters: as many as the usual share of shared memory allows. 0: none fit.
template <typename A>
int filter_threads(const Call& call) {
  const double bytes = static_cast<double>(call.geometry.taps) * sizeof(A);
  int threads = kFilterThreads;
  while (threads > 32 && (threads * bytes > kDefaultShared || !fits(call, threads * bytes))) threads /= 2;
  return fits(call, threads * bytes) ? threads : 0;
}

// False where the problem is not for these kernels; otherwise sets `error`.
template <typename T, Weight kWeight, Member kMember, int kChannels>
bool launch_filters(const Call& call, const Operands<T>& operands, cudaError_t* error) {
  using A = Accumulator<T>;
  const Geometry& geometry = call.geometry;
  if constexpr (kMember == Member::kInputs) {
    const Axis& columns = geometry.columns;
    const int64_t heads = least(geometry.heads, kFilterThreads);
    const int64_t width = most(1, least(kFilterThreads / heads, columns.inputs));
    const double reach = (width - 1 + (columns.window - 1.0) * columns.dilation) / columns.stride + 1;
    const double bytes = reach * heads * columns.window * sizeof(A);
    if (!fits(call, bytes)) return false;
    const FilterTiles tiles = {ceil_div(geometry.heads, heads), ceil_div(columns.inputs, width)};
    const int64_t blocks = tiles.heads * tiles.columns * geometry.rows.inputs * geometry.batch;
    *error = launch(call, filters_inputs_kernel<T, kWeight, kChannels>, blocks,
                    dim3(static_cast<unsigned>(heads), static_cast<unsigned>(width)), static_cast<size_t>(bytes),
                    geometry, operands, tiles);
  } else {
    const int threads = filter_threads<A>(call);
    if (threads == 0) return false;
    const auto kernel = [] {
      if constexpr (kMember == Member::kOutput) return filters_output_kernel<T, kWeight, kChannels>;
      if constexpr (kMember == Member::kSpatial) return filters_spatial_kernel<T, kWeight, kChannels>;
    }();
    *error = launch(call, kernel, ceil_div(geometry.filters(), threads), dim3(threads),
                    threads * geometry.taps * sizeof(A), geometry, operands);
  }
  return true;
}

template <typename T, Weight kWeight, Member kMember>
bool run_filters(const Call& call, const Operands<T>& operands, cudaError_t* error) {
  const int64_t channels = call.geometry.head_channels;
  if constexpr (kUsesSpatial<kWeight>) {
    if (channels == 1) return launch_filters<T, kWeight, kMember, 1>(call, operands, error);
    if (channels <= 4) return launch_filters<T, kWeight, kMember, 4>(call, operands, error);
    if (channels <= kFewChannels) return launch_filters<T, kWeight, kMember, 16>(call, operands, error);
  }
  return false;
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_FILTERS_CUH_
