// SPDX-License-Identifier: Apache-2.0
// The output and the gradient by the inputs, with lanes along the channels. Valid for every problem.
//
// Both gather: a result pixel sums weight times source over the taps, where the source is the inputs and the weight
// belongs to the result pixel (output), or the source is grad and the weight belongs to the source pixel (gradient).
// A thread has `kWidth` channels of `kRun` neighbouring pixels of a row, so that a source pixel it loads and the
// channel filter serve several results; a block covers several rows, so that the first-level cache serves the others.
#ifndef KERAS_DYNFILTER_CUDA_APPLY_CUH_
#define KERAS_DYNFILTER_CUDA_APPLY_CUH_

#include "cuda/softmax.cuh"

namespace keras_dynfilter::cuda {

inline constexpr int kRun = 4;
inline constexpr int kTileRows = 8;

struct ApplyTiles {
  int64_t channels, columns, rows;
};

template <Weight kWeight, typename A, int kWidth>
__device__ inline void add_tap(A spatial, const A (&channel)[kWidth], const A (&source)[kWidth], A (&sums)[kWidth]) {
#pragma unroll
  for (int w = 0; w < kWidth; ++w) sums[w] += combine<kWeight>(spatial, channel[w]) * source[w];
}

// What a thread needs to know to add up one row of a window.
template <typename T>
struct RowOfTaps {
  const T* source;                         // of the thread's channels, at column 0
  const T* channel;                        // filters of the thread's channels, at the first tap of the row
  const T* spatial;                        // filters of the head, at column 0 and the first tap of the row
  const Softmax<Accumulator<T>>* softmax;  // of the head, at column 0
  int64_t column, last;                    // first result column, and the offset of the last one inside the image
};

// Any window. `own` holds the softmax of the result pixels.
template <Weight kWeight, bool kForward, typename T, int kWidth>
__device__ inline void add_row(const Geometry& geometry, const RowOfTaps<T>& row,
                               const Softmax<Accumulator<T>> (&own)[kRun], Accumulator<T> (&sums)[kRun][kWidth]) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kWeight == Weight::kSoftmax;
  for (int64_t v = 0; v < geometry.columns.window; ++v) {
    A channel[kWidth] = {};
    if constexpr (kUsesChannel<kWeight>) load(row.channel + v * geometry.channels, channel);
#pragma unroll
    for (int p = 0; p < kRun; ++p) {
      int64_t column;
      if (p > row.last || !find_source<kForward>(geometry.columns, row.column + p, v, &column)) continue;
      A source[kWidth], spatial = 0;
      load(row.source + column * geometry.channels, source);
      if constexpr (kUsesSpatial<kWeight>) {
        const int64_t filter = (kForward ? row.column + p : column) * geometry.heads;
        Softmax<A> softmax = own[p];
        if constexpr (kNormalize && !kForward) softmax = row.softmax[filter];
        spatial = weight_at<kNormalize>(row.spatial + filter * geometry.taps, v, softmax);
      }
      add_tap<kWeight>(spatial, channel, source, sums[p]);
    }
  }
}

// A window of `kWindow` columns with neither stride nor dilation along them: each source column is loaded once, and all
// loads of the row are under way before the first sum.
template <Weight kWeight, bool kForward, int kWindow, typename T, int kWidth>
__device__ inline void add_dense_row(const Geometry& geometry, const RowOfTaps<T>& row,
                                     const Softmax<Accumulator<T>> (&own)[kRun], Accumulator<T> (&sums)[kRun][kWidth]) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kWeight == Weight::kSoftmax;
  constexpr int kColumns = kRun + kWindow - 1;
  const int64_t columns = kForward ? geometry.columns.inputs : geometry.columns.outputs;
  const int64_t first = row.column + (kForward ? -geometry.columns.pad : geometry.columns.pad - (kWindow - 1));
  // The tap under which result `p` meets source column `q`.
  const auto tap_of = [](int p, int q) { return kForward ? q - p : p + kWindow - 1 - q; };

  Bits<T, kWidth> sources[kColumns] = {}, factors[kWindow] = {};
  A spatial[kRun][kWindow] = {};
#pragma unroll
  for (int q = 0; q < kColumns; ++q) {
    const int64_t column = first + q;
    if (column >= 0 && column < columns) sources[q] = fetch<kWidth>(row.source + column * geometry.channels);
  }
  if constexpr (kUsesChannel<kWeight>) {
#pragma unroll
    for (int v = 0; v < kWindow; ++v) factors[v] = fetch<kWidth>(row.channel + v * geometry.channels);
  }
  if constexpr (kUsesSpatial<kWeight>) {
#pragma unroll
    for (int q = 0; q < kColumns; ++q) {
      const int64_t column = first + q;
      if (column < 0 || column >= columns) continue;
      Softmax<A> softmax = {};
      if constexpr (kNormalize && !kForward) softmax = row.softmax[column * geometry.heads];
#pragma unroll
      for (int p = 0; p < kRun; ++p) {
        const int v = tap_of(p, q);
        if (v < 0 || v >= kWindow) continue;
        // Results beyond the row are not stored; they read the last filter in place of none.
        const int64_t filter = (kForward ? row.column + least(p, row.last) : column) * geometry.heads;
        if constexpr (kNormalize && kForward) softmax = own[p];
        spatial[p][v] = weight_at<kNormalize>(row.spatial + filter * geometry.taps, v, softmax);
      }
    }
  }

#pragma unroll
  for (int q = 0; q < kColumns; ++q) {
    if (first + q < 0 || first + q >= columns) continue;
    A source[kWidth];
    unpack<T>(sources[q], source);
#pragma unroll
    for (int p = 0; p < kRun; ++p) {
      const int v = tap_of(p, q);
      if (v < 0 || v >= kWindow) continue;
      A factor[kWidth] = {};
      if constexpr (kUsesChannel<kWeight>) unpack<T>(factors[v], factor);
      add_tap<kWeight>(spatial[p][v], factor, source, sums[p]);
    }
  }
}

template <typename T, Weight kWeight, bool kForward, int kWindow, int kWidth>
__global__ void __launch_bounds__(kThreads) apply_kernel(Geometry geometry, Operands<T> operands, ApplyTiles tiles) {
  using A = Accumulator<T>;
  const Axis& rows = geometry.rows;
  const Axis& columns = geometry.columns;
  const int64_t result_rows = kForward ? rows.outputs : rows.inputs;
  const int64_t result_columns = kForward ? columns.outputs : columns.inputs;
  const int64_t source_rows = kForward ? rows.inputs : rows.outputs;
  const int64_t source_columns = kForward ? columns.inputs : columns.outputs;
  const int64_t count = tiles.channels * tiles.columns * tiles.rows * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t channel = (take(rest, tiles.channels) * blockDim.x + threadIdx.x) * kWidth;
    const int64_t column = (take(rest, tiles.columns) * blockDim.y + threadIdx.y) * kRun;
    const int64_t result_row = take(rest, tiles.rows) * blockDim.z + threadIdx.z;
    const int64_t sample = rest;
    if (channel >= geometry.channels || column >= result_columns || result_row >= result_rows) continue;

    const int64_t head = kUsesSpatial<kWeight> ? channel / geometry.head_channels : 0;
    RowOfTaps<T> row = {};
    row.column = column;
    row.last = least(kRun, result_columns - column) - 1;
    Softmax<A> own[kRun] = {};
    if constexpr (kWeight == Weight::kSoftmax && kForward) {
      const int64_t pixel = (sample * result_rows + result_row) * result_columns + column;
#pragma unroll
      for (int p = 0; p < kRun; ++p) {
        const int64_t filter = (pixel + least(p, row.last)) * geometry.heads + head;
        own[p] = softmax_of(operands.spatial + filter * geometry.taps, geometry.taps);
      }
    }

    A sums[kRun][kWidth] = {};
    for (int64_t u = 0; u < rows.window; ++u) {
      int64_t source_row;
      if (!find_source<kForward>(rows, result_row, u, &source_row)) continue;
      const T* source = kForward ? operands.inputs : operands.grad;
      row.source = source + (sample * source_rows + source_row) * source_columns * geometry.channels + channel;
      const int64_t tap = u * columns.window;
      if constexpr (kUsesChannel<kWeight>) {
        row.channel = operands.channel + (sample * geometry.taps + tap) * geometry.channels + channel;
      }
      if constexpr (kUsesSpatial<kWeight>) {
        const int64_t output_row = sample * rows.outputs + (kForward ? result_row : source_row);
        const int64_t filter = output_row * columns.outputs * geometry.heads + head;
        row.spatial = operands.spatial + filter * geometry.taps + tap;
        if constexpr (kWeight == Weight::kSoftmax && !kForward) {
          row.softmax = static_cast<const Softmax<A>*>(operands.workspace) + filter;
        }
      }
      if constexpr (kWindow > 0) {
        add_dense_row<kWeight, kForward, kWindow>(geometry, row, own, sums);
      } else {
        add_row<kWeight, kForward>(geometry, row, own, sums);
      }
    }

    T* result =
        operands.result + ((sample * result_rows + result_row) * result_columns + column) * geometry.channels + channel;
#pragma unroll
    for (int p = 0; p < kRun; ++p) {
      if (p <= row.last) store(sums[p], result + p * geometry.channels);
    }
  }
}

template <typename T, Weight kWeight, bool kForward, int kWindow, int kWidth>
cudaError_t launch_apply(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const int64_t packs = ceil_div(geometry.channels, kWidth);
  if (packs == 0) return cudaSuccess;
  const int64_t channel_tiles = ceil_div(packs, 32);
  const int64_t lanes = ceil_div(packs, channel_tiles);
  const int64_t groups = kThreads / (kTileRows * lanes);
  const ApplyTiles tiles = {
      channel_tiles,
      ceil_div(kForward ? geometry.columns.outputs : geometry.columns.inputs, kRun * groups),
      ceil_div(kForward ? geometry.rows.outputs : geometry.rows.inputs, kTileRows),
  };
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(groups), kTileRows);
  return launch(call, apply_kernel<T, kWeight, kForward, kWindow, kWidth>,
                tiles.channels * tiles.columns * tiles.rows * geometry.batch, threads, 0, geometry, operands, tiles);
}

template <typename T, Weight kWeight, bool kForward, int kWidth>
cudaError_t run_apply(const Call& call, const Operands<T>& operands) {
  const Axis& columns = call.geometry.columns;
  const bool dense = columns.stride == 1 && columns.dilation == 1;
  if (dense && columns.window == 3) return launch_apply<T, kWeight, kForward, 3, kWidth>(call, operands);
  if (dense && columns.window == 5) return launch_apply<T, kWeight, kForward, 5, kWidth>(call, operands);
  return launch_apply<T, kWeight, kForward, 0, kWidth>(call, operands);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_APPLY_CUH_
