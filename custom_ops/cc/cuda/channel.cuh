// SPDX-License-Identifier: Apache-2.0
// The gradient by the channel filters, which sums over all positions of a sample, in two stages of fixed order.
//
// First, a block sums a chunk of positions for a few taps: neighbouring threads have neighbouring channels and then
// positions, and the groups of threads are added up as a tree. Then the chunks are added up in order.
#ifndef KERAS_DYNFILTER_CUDA_CHANNEL_CUH_
#define KERAS_DYNFILTER_CUDA_CHANNEL_CUH_

#include "cuda/tap_tile.cuh"

namespace keras_dynfilter::cuda {

struct Chunks {
  int64_t count, positions;  // of one sample, and positions of one chunk
};

// A function of the sizes alone, so that neither the device nor the alignment of the operands changes the result.
inline Chunks chunks_of(const Geometry& geometry) {
  constexpr int64_t kBlocks = 1024, kElements = 8192;  // enough blocks for any device, and enough work for a block
  const int64_t channels = most(1, least(geometry.channels, 128)), positions = geometry.outputs();
  const int64_t blocks = most(1, geometry.batch * tap_tiles(geometry) * ceil_div(geometry.channels, 128));
  const int64_t count = most(1, least(ceil_div(kBlocks, blocks), positions / ceil_div(kElements, channels)));
  return {count, ceil_div(positions, count)};
}

inline int64_t partial_sums(const Geometry& geometry) {
  return geometry.batch * chunks_of(geometry).count * geometry.taps * geometry.channels;
}

template <typename T, Weight kWeight, int kWindow, int kWidth>
__global__ void __launch_bounds__(kThreads, 2)
    channel_kernel(Geometry geometry, Operands<T> operands, Chunks chunks, int64_t channel_tiles, int64_t taps_tiles) {
  using A = Accumulator<T>;
  A* shared = shared_memory<A>();
  const int64_t taps = geometry.taps, positions = geometry.outputs();
  const int64_t image = geometry.rows.inputs * geometry.columns.inputs;
  const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int64_t count = channel_tiles * taps_tiles * chunks.count * geometry.batch;
  for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    int64_t rest = tile;
    const int64_t channel = (take(rest, channel_tiles) * blockDim.x + threadIdx.x) * kWidth;
    const int64_t tap = take(rest, taps_tiles) * kTapTile;
    const int64_t chunk = rest;  // of all chunks of all samples
    const int64_t begin = take(rest, chunks.count) * chunks.positions;
    const int64_t end = least(begin + chunks.positions, positions);
    const int64_t sample = rest;

    A sums[kTapTile][kWidth] = {};
    if (channel < geometry.channels) {
      const int64_t head = kWeight == Weight::kMul ? channel / geometry.head_channels : 0;
      const T* inputs = operands.inputs + sample * image * geometry.channels + channel;
      for (int64_t position = begin + threadIdx.y; position < end; position += blockDim.y) {
        const int64_t pixel = sample * positions + position;
        int64_t pixels[kTapTile];
        find_pixels<kWindow>(geometry, position / geometry.columns.outputs, position % geometry.columns.outputs, tap,
                             pixels);
        A above[kWidth];
        load(operands.grad + pixel * geometry.channels + channel, above);
        const T* filter = nullptr;
        if constexpr (kWeight == Weight::kMul) {
          filter = operands.spatial + (pixel * geometry.heads + head) * taps + tap;
        }
#pragma unroll
        for (int begin = 0; begin < kTapTile; begin += kTapsInFlight) {
          Bits<T, kWidth> under[kTapsInFlight] = {};
          A spatial[kTapsInFlight] = {};
#pragma unroll
          for (int k = 0; k < kTapsInFlight; ++k) {
            if (pixels[begin + k] < 0) continue;
            under[k] = fetch<kWidth>(inputs + pixels[begin + k] * geometry.channels);
            if constexpr (kWeight == Weight::kMul) spatial[k] = widen(filter[begin + k]);
          }
#pragma unroll
          for (int k = 0; k < kTapsInFlight; ++k) {
            if (pixels[begin + k] < 0) continue;
            A below[kWidth];
            unpack<T>(under[k], below);
#pragma unroll
            for (int w = 0; w < kWidth; ++w) {
              if constexpr (kWeight == Weight::kMul) {
                sums[begin + k][w] += above[w] * spatial[k] * below[w];
              } else {
                sums[begin + k][w] += above[w] * below[w];
              }
            }
          }
        }
      }
    }

#pragma unroll
    for (int e = 0; e < kTapTile * kWidth; ++e) shared[e * threads + thread] = sums[e / kWidth][e % kWidth];
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.y) >= half) continue;
#pragma unroll
      for (int e = 0; e < kTapTile * kWidth; ++e) {
        shared[e * threads + thread] += shared[e * threads + thread + half * blockDim.x];
      }
    }
    // The first group wrote, and now reads, its own sums alone; the next chunk overwrites those of all groups.
    if (threadIdx.y == 0 && channel < geometry.channels) {
      A* partial = static_cast<A*>(operands.workspace) + (chunk * taps + tap) * geometry.channels + channel;
#pragma unroll
      for (int e = 0; e < kTapTile * kWidth; ++e) {
        if (tap + e / kWidth < taps)
          partial[e / kWidth * geometry.channels + e % kWidth] = shared[e * threads + thread];
      }
    }
    __syncthreads();
  }
}

// Blocks of 32 neighbouring results x several shares of the chunks.
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
      for (unsigned share = 1; share < blockDim.y; ++share) sum += shared[share * blockDim.x + threadIdx.x];
      narrow(sum, operands.result + result);
    }
    __syncthreads();
  }
}

template <typename T, Weight kWeight, int kWidth>
cudaError_t run_channel(const Call& call, const Operands<T>& operands) {
  using A = Accumulator<T>;
  const Geometry& geometry = call.geometry;
  const Chunks chunks = chunks_of(geometry);
  const int64_t packs = ceil_div(geometry.channels, kWidth), channel_tiles = ceil_div(packs, 32);
  const int64_t lanes = ceil_div(packs, channel_tiles), taps_tiles = tap_tiles(geometry);
  int64_t groups = 1;
  while (2 * groups * lanes <= kThreads) groups *= 2;
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(groups));
  const auto kernel = is_3x3(geometry) ? channel_kernel<T, kWeight, 3, kWidth> : channel_kernel<T, kWeight, 0, kWidth>;
  const cudaError_t error =
      launch(call, kernel, channel_tiles * taps_tiles * chunks.count * geometry.batch, threads,
             kTapTile * kWidth * lanes * groups * sizeof(A), geometry, operands, chunks, channel_tiles, taps_tiles);
  if (error != cudaSuccess) return error;
  const int64_t results = geometry.batch * geometry.taps * geometry.channels;
  return launch(call, channel_sum_kernel<T>, ceil_div(results, 32), dim3(32, 8), kThreads * sizeof(A), geometry,
                operands, chunks.count);
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_CHANNEL_CUH_
