// SPDX-License-Identifier: Apache-2.0
// Computes the gradient with respect to the channel filters. Valid for every problem. The gradient is a sum over all
// positions of a sample, computed in two stages with a fixed order.
//
// In the first stage, a block sums a chunk of positions for a tile of taps. Neighbouring threads have neighbouring
// channels, and groups of threads have neighbouring positions. The sums of the groups are added pairwise, as a tree. In
// the second stage, the sums of the chunks are added up in order.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_CHANNEL_GRADIENT_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_CHANNEL_GRADIENT_CUH_

#include "cuda/kernels/tap_tile.cuh"

namespace keras_dynfilter::cuda {

struct Chunks {
  int64_t count, positions;  // the number of chunks of a sample, and the number of positions of a chunk
};

// Chooses the chunks from the sizes only, so that neither the device nor the alignment of the operands changes the
// result.
inline Chunks chunks_of(const Geometry& geometry) {
  const int64_t channels = max(1, min(geometry.channels, kChunkChannels)), positions = geometry.outputs();
  const int64_t blocks =
      max(1, geometry.batch * count_tap_tiles(geometry) * ceil_div(geometry.channels, kChunkChannels));
  const int64_t count = max(1, min(ceil_div(kChunkBlocks, blocks), positions / ceil_div(kChunkElements, channels)));
  return {count, ceil_div(positions, count)};
}

inline int64_t partial_sums(const Geometry& geometry) {
  return geometry.batch * chunks_of(geometry).count * geometry.taps * geometry.channels;
}

template <typename T, FilterKind kKind, int kWindowCols, int kVecElems>
__global__ void __launch_bounds__(kThreads, kChannelBlocksPerMultiprocessor)
    channel_kernel(Geometry geometry, Operands<T> operands, Chunks chunks, int64_t channel_tiles, int64_t tap_tiles) {
  using A = Accumulator<T>;
  A* shared = shared_memory<A>();
  const int64_t taps = geometry.taps, positions = geometry.outputs();
  const int64_t image = geometry.rows.size * geometry.columns.size;
  const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int64_t count = channel_tiles * tap_tiles * chunks.count * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t channel = (divmod(rest, channel_tiles) * blockDim.x + threadIdx.x) * kVecElems;
    const int64_t tap = divmod(rest, tap_tiles) * kTapTile;
    const int64_t chunk = rest;  // among the chunks of all samples
    const int64_t begin = divmod(rest, chunks.count) * chunks.positions;
    const int64_t end = min(begin + chunks.positions, positions);
    const int64_t sample = rest;

    A sums[kTapTile][kVecElems] = {};
    if (channel < geometry.channels && is_used<kWindowCols>(geometry, tap)) {
      const int64_t head = kKind == FilterKind::kMul ? channel / geometry.head_channels : 0;
      const T* inputs = operands.inputs + sample * image * geometry.channels + channel;
      for (int64_t position = begin + threadIdx.y; position < end; position += blockDim.y) {
        const int64_t pixel = sample * positions + position;
        int64_t pixels[kTapTile];
        find_pixels<kWindowCols>(geometry, position / geometry.columns.out_size, position % geometry.columns.out_size,
                                 tap, pixels);
        A upstream[kVecElems];
        load(operands.grad + pixel * geometry.channels + channel, upstream);
        const T* filter = nullptr;
        if constexpr (kKind == FilterKind::kMul) {
          filter = operands.spatial + (pixel * geometry.heads + head) * taps + tap;
        }
#pragma unroll
        for (int begin = 0; begin < kTapTile; begin += kTapsInFlight) {
          Bits<T, kVecElems> in_flight[kTapsInFlight] = {};
          A spatial[kTapsInFlight] = {};
#pragma unroll
          for (int k = 0; k < kTapsInFlight; ++k) {
            if (pixels[begin + k] < 0) continue;
            in_flight[k] = fetch<kVecElems>(inputs + pixels[begin + k] * geometry.channels);
            if constexpr (kKind == FilterKind::kMul) spatial[k] = widen(filter[begin + k]);
          }
#pragma unroll
          for (int k = 0; k < kTapsInFlight; ++k) {
            if (pixels[begin + k] < 0) continue;
            A value[kVecElems];
            unpack<T>(in_flight[k], value);
#pragma unroll
            for (int w = 0; w < kVecElems; ++w) {
              if constexpr (kKind == FilterKind::kMul) {
                sums[begin + k][w] += upstream[w] * spatial[k] * value[w];
              } else {
                sums[begin + k][w] += upstream[w] * value[w];
              }
            }
          }
        }
      }
    }

#pragma unroll
    for (int e = 0; e < kTapTile * kVecElems; ++e) shared[e * threads + thread] = sums[e / kVecElems][e % kVecElems];
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.y) >= half) continue;
#pragma unroll
      for (int e = 0; e < kTapTile * kVecElems; ++e) {
        shared[e * threads + thread] += shared[e * threads + thread + half * blockDim.x];
      }
    }
    // No barrier is needed before this step, because the first group reads only sums that it wrote itself. The barrier
    // after this step keeps the next chunk from overwriting sums that are still needed.
    if (threadIdx.y == 0 && channel < geometry.channels) {
      A* partial = static_cast<A*>(operands.workspace) + (chunk * taps + tap) * geometry.channels + channel;
#pragma unroll
      for (int e = 0; e < kTapTile * kVecElems; ++e) {
        if (tap + e / kVecElems < taps)
          partial[e / kVecElems * geometry.channels + e % kVecElems] = shared[e * threads + thread];
      }
    }
    __syncthreads();
  }
}

// Adds up the chunks. A block computes a warp of neighbouring results. It has kSumGroups warps, and each warp adds up a
// part of the chunks.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    channel_sum_kernel(Geometry geometry, Operands<T> operands, int64_t chunks) {
  using A = Accumulator<T>;
  A* shared = shared_memory<A>();
  const int64_t size = geometry.taps * geometry.channels, results = geometry.batch * size;
  for (int64_t first = int64_t{blockIdx.x} * blockDim.x; first < results; first += int64_t{gridDim.x} * blockDim.x) {
    const int64_t result = first + threadIdx.x;
    A sum = 0;
    if (result < results) {
      const A* partial = static_cast<const A*>(operands.workspace) + result / size * chunks * size + result % size;
      for (int64_t chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) sum += partial[chunk * size];
    }
    shared[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && result < results) {
      for (unsigned group = 1; group < blockDim.y; ++group) sum += shared[group * blockDim.x + threadIdx.x];
      narrow(sum, operands.result + result);
    }
    __syncthreads();
  }
}

template <typename T, FilterKind kKind, int kVecElems>
cudaError_t run_channel(const Call& call, const Operands<T>& operands) {
  using A = Accumulator<T>;
  const Geometry& geometry = call.geometry;
  const Chunks chunks = chunks_of(geometry);
  const int64_t packs = ceil_div(geometry.channels, kVecElems), channel_tiles = ceil_div(packs, kWarpSize);
  const int64_t lanes = ceil_div(packs, channel_tiles), tap_tiles = count_tap_tiles(geometry);
  int64_t groups = 1;
  while (2 * groups * lanes <= kThreads) groups *= 2;
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(groups));
  const auto kernel =
      call.choice.window_cols == 3 ? channel_kernel<T, kKind, 3, kVecElems> : channel_kernel<T, kKind, 0, kVecElems>;
  const cudaError_t error =
      launch(call, kernel, channel_tiles * tap_tiles * chunks.count * geometry.batch, threads,
             kTapTile * kVecElems * lanes * groups * sizeof(A), geometry, operands, chunks, channel_tiles, tap_tiles);
  if (error != cudaSuccess) return error;
  const int64_t results = geometry.batch * geometry.taps * geometry.channels;
  return launch(call, channel_sum_kernel<T>, ceil_div(results, kWarpSize), dim3(kWarpSize, kSumGroups),
                kThreads * sizeof(A), geometry, operands, chunks.count);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_CHANNEL_GRADIENT_CUH_
