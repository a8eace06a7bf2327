// SPDX-License-Identifier: Apache-2.0
// Computes the output and the gradient with respect to the inputs, with threads along the channels. Valid for every
// problem.
//
// A result pixel is the sum of filter value times source pixel over the taps. For the output, the source is the inputs
// and the filter belongs to the result pixel. For the gradient, the source is grad and the filter belongs to the source
// pixel. A thread computes `kVecElems` channels of `kRun` neighbouring pixels of a row, so that it uses each loaded
// source pixel and channel filter for several results. A block covers several rows, which share sources in the L1
// cache.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_GATHER_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_GATHER_CUH_

#include "cuda/kernels/softmax.cuh"

namespace keras_dynfilter::cuda {

struct GatherTiles {
  int64_t channels, columns, rows;
};

template <FilterKind kKind, typename A, int kVecElems>
__device__ inline void add_tap(A spatial, const A (&channel)[kVecElems], const A (&source)[kVecElems],
                               A (&sums)[kVecElems]) {
#pragma unroll
  for (int w = 0; w < kVecElems; ++w) sums[w] += combine<kKind>(spatial, channel[w]) * source[w];
}

// The operands of a thread for one row of a window.
template <typename T>
struct RowOfTaps {
  const T* source;                         // the source row, at the channels of the thread and column 0
  const T* channel;                        // filters at the channels of the thread and the first tap of the row
  const T* spatial;                        // filters of the head at column 0 and the first tap of the row
  const Softmax<Accumulator<T>>* softmax;  // of the head at column 0
  int64_t column, last;                    // first result column, and the offset of the last result column in the image
};

// Adds one row of a window of any size. `result_softmax` is the softmax of the result pixels (forward).
template <FilterKind kKind, bool kForward, typename T, int kVecElems>
__device__ inline void add_row(const Geometry& geometry, const RowOfTaps<T>& row,
                               const Softmax<Accumulator<T>> (&result_softmax)[kRun],
                               Accumulator<T> (&sums)[kRun][kVecElems]) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kKind == FilterKind::kSoftmax;
  for (int64_t v = geometry.tap_columns.begin; v < geometry.tap_columns.end; ++v) {
    A channel[kVecElems] = {};
    if constexpr (kUsesChannel<kKind>) load(row.channel + v * geometry.channels, channel);
#pragma unroll
    for (int p = 0; p < kRun; ++p) {
      int64_t column;
      if (p > row.last || !find_source<kForward>(geometry.columns, row.column + p, v, &column)) continue;
      A source[kVecElems], spatial = 0;
      load(row.source + column * geometry.channels, source);
      if constexpr (kUsesSpatial<kKind>) {
        const int64_t filter = (kForward ? row.column + p : column) * geometry.heads;
        Softmax<A> softmax = result_softmax[p];
        if constexpr (kNormalize && !kForward) softmax = row.softmax[filter];
        spatial = filter_value<kNormalize>(row.spatial + filter * geometry.taps, v, softmax);
      }
      add_tap<kKind>(spatial, channel, source, sums[p]);
    }
  }
}

// Adds one row of a window of `kWindowCols` columns without stride and dilation along the columns. Each source column
// is loaded once, and all loads of the row are issued before the first sum.
template <FilterKind kKind, bool kForward, int kWindowCols, typename T, int kVecElems>
__device__ inline void add_dense_row(const Geometry& geometry, const RowOfTaps<T>& row,
                                     const Softmax<Accumulator<T>> (&result_softmax)[kRun],
                                     Accumulator<T> (&sums)[kRun][kVecElems]) {
  using A = Accumulator<T>;
  constexpr bool kNormalize = kKind == FilterKind::kSoftmax;
  constexpr int kColumns = kRun + kWindowCols - 1;
  const int64_t columns = kForward ? geometry.columns.size : geometry.columns.out_size;
  const int64_t first = row.column + (kForward ? -geometry.columns.pad : geometry.columns.pad - (kWindowCols - 1));
  // The tap at which result `p` uses source column `q`.
  const auto tap_of = [](int p, int q) { return kForward ? q - p : p + kWindowCols - 1 - q; };

  Bits<T, kVecElems> sources[kColumns] = {}, factors[kWindowCols] = {};
  A spatial[kRun][kWindowCols] = {};
#pragma unroll
  for (int q = 0; q < kColumns; ++q) {
    const int64_t column = first + q;
    if (column >= 0 && column < columns) sources[q] = fetch<kVecElems>(row.source + column * geometry.channels);
  }
  if constexpr (kUsesChannel<kKind>) {
#pragma unroll
    for (int v = 0; v < kWindowCols; ++v) factors[v] = fetch<kVecElems>(row.channel + v * geometry.channels);
  }
  if constexpr (kUsesSpatial<kKind>) {
#pragma unroll
    for (int q = 0; q < kColumns; ++q) {
      const int64_t column = first + q;
      if (column < 0 || column >= columns) continue;
      Softmax<A> softmax = {};
      if constexpr (kNormalize && !kForward) softmax = row.softmax[column * geometry.heads];
#pragma unroll
      for (int p = 0; p < kRun; ++p) {
        const int v = tap_of(p, q);
        if (v < 0 || v >= kWindowCols) continue;
        // Results beyond the end of the row have no filter. They use the last filter of the row and are not stored.
        const int64_t filter = (kForward ? row.column + min(p, row.last) : column) * geometry.heads;
        if constexpr (kNormalize && kForward) softmax = result_softmax[p];
        spatial[p][v] = filter_value<kNormalize>(row.spatial + filter * geometry.taps, v, softmax);
      }
    }
  }

#pragma unroll
  for (int q = 0; q < kColumns; ++q) {
    if (first + q < 0 || first + q >= columns) continue;
    A source[kVecElems];
    unpack<T>(sources[q], source);
#pragma unroll
    for (int p = 0; p < kRun; ++p) {
      const int v = tap_of(p, q);
      if (v < 0 || v >= kWindowCols) continue;
      A factor[kVecElems] = {};
      if constexpr (kUsesChannel<kKind>) unpack<T>(factors[v], factor);
      add_tap<kKind>(spatial[p][v], factor, source, sums[p]);
    }
  }
}

template <typename T, FilterKind kKind, bool kForward, int kWindowCols, int kVecElems>
__global__ void __launch_bounds__(kThreads) gather_kernel(Geometry geometry, Operands<T> operands, GatherTiles tiles) {
  using A = Accumulator<T>;
  const Axis& rows = geometry.rows;
  const Axis& columns = geometry.columns;
  const int64_t result_rows = kForward ? rows.out_size : rows.size;
  const int64_t result_columns = kForward ? columns.out_size : columns.size;
  const int64_t source_rows = kForward ? rows.size : rows.out_size;
  const int64_t source_columns = kForward ? columns.size : columns.out_size;
  const int64_t count = tiles.channels * tiles.columns * tiles.rows * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t channel = (divmod(rest, tiles.channels) * blockDim.x + threadIdx.x) * kVecElems;
    const int64_t column = (divmod(rest, tiles.columns) * blockDim.y + threadIdx.y) * kRun;
    const int64_t result_row = divmod(rest, tiles.rows) * blockDim.z + threadIdx.z;
    const int64_t sample = rest;
    if (channel >= geometry.channels || column >= result_columns || result_row >= result_rows) continue;

    const int64_t head = kUsesSpatial<kKind> ? channel / geometry.head_channels : 0;
    RowOfTaps<T> row = {};
    row.column = column;
    row.last = min(kRun, result_columns - column) - 1;
    Softmax<A> result_softmax[kRun] = {};
    if constexpr (kKind == FilterKind::kSoftmax && kForward) {
      const int64_t pixel = (sample * result_rows + result_row) * result_columns + column;
#pragma unroll
      for (int p = 0; p < kRun; ++p) {
        const int64_t filter = (pixel + min(p, row.last)) * geometry.heads + head;
        result_softmax[p] = softmax_of(operands.spatial + filter * geometry.taps, geometry.taps);
      }
    }

    A sums[kRun][kVecElems] = {};
    for (int64_t u = geometry.tap_rows.begin; u < geometry.tap_rows.end; ++u) {
      int64_t source_row;
      if (!find_source<kForward>(rows, result_row, u, &source_row)) continue;
      const T* source = kForward ? operands.inputs : operands.grad;
      row.source = source + (sample * source_rows + source_row) * source_columns * geometry.channels + channel;
      const int64_t tap = u * columns.window;
      if constexpr (kUsesChannel<kKind>) {
        row.channel = operands.channel + (sample * geometry.taps + tap) * geometry.channels + channel;
      }
      if constexpr (kUsesSpatial<kKind>) {
        const int64_t output_row = sample * rows.out_size + (kForward ? result_row : source_row);
        const int64_t filter = output_row * columns.out_size * geometry.heads + head;
        row.spatial = operands.spatial + filter * geometry.taps + tap;
        if constexpr (kKind == FilterKind::kSoftmax && !kForward) {
          row.softmax = static_cast<const Softmax<A>*>(operands.workspace) + filter;
        }
      }
      if constexpr (kWindowCols > 0) {
        add_dense_row<kKind, kForward, kWindowCols>(geometry, row, result_softmax, sums);
      } else {
        add_row<kKind, kForward>(geometry, row, result_softmax, sums);
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

template <typename T, FilterKind kKind, bool kForward, int kWindowCols, int kVecElems>
cudaError_t launch_gather(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const int64_t packs = ceil_div(geometry.channels, kVecElems);
  if (packs == 0) return cudaSuccess;
  const int64_t channel_tiles = ceil_div(packs, kWarpSize);
  const int64_t lanes = ceil_div(packs, channel_tiles);
  const int64_t groups = kThreads / (kTileRows * lanes);
  const GatherTiles tiles = {
      channel_tiles,
      ceil_div(kForward ? geometry.columns.out_size : geometry.columns.size, kRun * groups),
      ceil_div(kForward ? geometry.rows.out_size : geometry.rows.size, kTileRows),
  };
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(groups), kTileRows);
  return launch(call, gather_kernel<T, kKind, kForward, kWindowCols, kVecElems>,
                tiles.channels * tiles.columns * tiles.rows * geometry.batch, threads, 0, geometry, operands, tiles);
}

template <typename T, FilterKind kKind, bool kForward, int kVecElems>
cudaError_t run_gather(const Call& call, const Operands<T>& operands) {
  switch (call.choice.window_cols) {
    case 3: return launch_gather<T, kKind, kForward, 3, kVecElems>(call, operands);
    case 5: return launch_gather<T, kKind, kForward, 5, kVecElems>(call, operands);
    default: return launch_gather<T, kKind, kForward, 0, kVecElems>(call, operands);
  }
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_GATHER_CUH_
