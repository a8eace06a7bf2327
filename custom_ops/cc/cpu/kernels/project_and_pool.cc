// SPDX-License-Identifier: Apache-2.0
// ProjectAndPool on the CPU, with vector lanes along the channels. While a vector of a pixel is in a register, it is
// multiplied with every column of the kernel and added to the sum of the pixels.
#include "project_and_pool.h"

#include <algorithm>

#include "cpu/simd/lane_sums.h"
#include "cpu/simd/vec.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {
namespace {

// The numbers of columns and pixels that are computed at a time. Their accumulators nearly fill the registers. The
// filters of a 3x3 window have nine columns.
constexpr int kColumns = 9;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kPixels = 2;
#else
constexpr int kPixels = 1;
#endif

// The number of channels, rounded up to whole vectors of the widest instruction set, so that the workspace has the same
// size on all instruction sets.
template <typename A>
int64_t padded(int64_t channels) {
  constexpr int64_t kWidest = 64 / sizeof(A);
  return ceil_div(channels, kWidest) * kWidest;
}

int64_t blocks(const Projection& p) { return ceil_div(p.outputs, kColumns); }

// The rows of the transposed kernel.
int64_t kernel_rows(const Projection& p) { return std::max<int64_t>(blocks(p), 1) * kColumns; }

// The sums of the pixels. Each band of pixels of an image has a partial sum, and memory for the sums of a run.
template <typename A>
PartialSums pixel_sums(const Projection& p) {
  constexpr int64_t kManyElements = int64_t{1} << 30;  // products of sizes do not overflow
  const int64_t elements = std::min(p.pixels * p.channels, kManyElements);
  const int64_t bands = band_count(elements * std::clamp<int64_t>(p.outputs, kColumns, kManyElements), p.pixels);
  return split_sums(p.batch, bands, 2 * padded<A>(p.channels) * sizeof(A));
}

// The distance of prefetching in bytes. Hardware prefetches only within a page of memory; prefetching across pages
// saves a third of the time on a large image.
constexpr int64_t kAhead = 4096;

template <typename A, int Count, bool kSum>
KDF_INLINE void add_products(const Vec<A>* values, const A* kernel, int64_t stride, A* sums, Vec<A>* totals) {
  if constexpr (kSum) {
    Vec<A> total = values[0];
#pragma GCC unroll 2
    for (int q = 1; q < Count; ++q) total += values[q];
    store(sums, load(sums) + total);
  }
#pragma GCC unroll 9
  for (int k = 0; k < kColumns; ++k) {
    const Vec<A> factor = load(kernel + k * stride);
#pragma GCC unroll 2
    for (int q = 0; q < Count; ++q) totals[q * kColumns + k] += values[q] * factor;
  }
}

template <typename T>
struct Task {
  using A = Accumulator<T>;
  const Projection& p;
  const T *inputs, *bias;
  T* projected;
  const A* kernel;  // transposed: [blocks * kColumns, padded channels]
  int64_t stride = padded<A>(p.channels);

  // Computes a block of columns for `Count` pixels, starting at `pixel`. If kSum, adds the pixels to `sums`.
  template <int Count, bool kSum>
  void columns(int64_t pixel, int64_t block, A* sums) const {
    constexpr int L = kLanes<A>;
    // Local copies, because the compiler assumes that a store to memory can change the members.
    const int64_t C = p.channels, stride = this->stride;
    const T* x = inputs + pixel * C;
    const A* w = kernel + block * kColumns * stride;
    Vec<A> totals[Count * kColumns] = {};
    int64_t c = 0;
    for (; c + L <= C; c += L) {
      Vec<A> values[Count];
#pragma GCC unroll 2
      for (int q = 0; q < Count; ++q) {
        values[q] = load(x + q * C + c);
        if constexpr (kSum) __builtin_prefetch(reinterpret_cast<const char*>(x + q * C + c) + kAhead);
      }
      add_products<A, Count, kSum>(values, w + c, stride, sums + c, totals);
    }
    if (c < C) {
      Vec<A> values[Count];
#pragma GCC unroll 2
      for (int q = 0; q < Count; ++q) values[q] = load(x + q * C + c, C - c);
      add_products<A, Count, kSum>(values, w + c, stride, sums + c, totals);
    }
    const int64_t first = block * kColumns, count = std::min<int64_t>(kColumns, p.outputs - first);
    A results[Count * kColumns];
    lane_sums<A, Count * kColumns>(totals, results);
    for (int q = 0; q < Count; ++q) {
      const A* from = results + q * kColumns;
      T* to = projected + (pixel + q) * p.outputs + first;
      for (int64_t k = 0; k < count; ++k) to[k] = from_accumulator<T>(from[k] + to_accumulator(bias[first + k]));
    }
  }

  template <int Count>
  void pixel_group(int64_t pixel, A* sums) const {
    columns<Count, true>(pixel, 0, sums);
    for (int64_t block = 1; block < blocks(p); ++block) columns<Count, false>(pixel, block, sums);
  }

  // Computes the pixels [first, last). Adds up the sums of short runs, which has a smaller rounding error than one long
  // sum.
  void band(int64_t first, int64_t last, A* partial, A* sums) const {
    constexpr int64_t kRun = 128;
    std::fill(partial, partial + stride, A(0));
    for (int64_t begin = first; begin < last; begin += kRun) {
      const int64_t end = std::min(begin + kRun, last);
      std::fill(sums, sums + stride, A(0));
      int64_t pixel = begin;
      for (; pixel + kPixels <= end; pixel += kPixels) pixel_group<kPixels>(pixel, sums);
      for (; pixel < end; ++pixel) pixel_group<1>(pixel, sums);
      for (int64_t c = 0; c < stride; ++c) partial[c] += sums[c];
    }
  }
};

template <typename T>
void run_type(const Projection& p, const ProjectionBuffers& b, const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const int64_t stride = padded<A>(p.channels), rows = kernel_rows(p);
  const PartialSums pixel_sum = pixel_sums<A>(p);
  const int64_t count = pixel_sum.bands;
  auto* transposed = static_cast<A*>(b.workspace);
  auto* partials = transposed + rows * stride;
  const auto* kernel = static_cast<const T*>(b.kernel);
  for (int64_t k = 0; k < rows; ++k) {
    A* row = transposed + k * stride;
    std::fill(row, row + stride, A(0));
    if (k >= p.outputs) continue;
    for (int64_t c = 0; c < p.channels; ++c) row[c] = to_accumulator(kernel[c * p.outputs + k]);
  }
  const Task<T> task{p, static_cast<const T*>(b.inputs), static_cast<const T*>(b.bias), static_cast<T*>(b.projected),
                     transposed};
  // The cost in cycles. Measured with AVX-512: eight products take one cycle, including the sums over the lanes.
  const double cycles = static_cast<double>(p.pixels / count) * stride * rows / 8;
  const auto cost = static_cast<int64_t>(std::clamp(cycles, 1.0, 1e9));
  for (int64_t first = 0; first < p.batch; first += pixel_sum.samples) {
    const int64_t images = std::min(pixel_sum.samples, p.batch - first);
    parallel_for(images * count, cost, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t origin = (first + i / count) * p.pixels;
        const Range band = nth_range(p.pixels, i % count, count);
        A* partial = partials + 2 * i * stride;  // followed by memory for the sums of a run
        task.band(origin + band.begin, origin + band.end, partial, partial + stride);
      }
    });
    T* means = static_cast<T*>(b.means) + first * p.channels;
    parallel_for(images * p.channels, count, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) {
        const A* partial = partials + 2 * (e / p.channels) * count * stride + e % p.channels;
        A total = 0;
        for (int64_t i = 0; i < count; ++i) total += partial[2 * i * stride];
        means[e] = from_accumulator<T>(total / static_cast<A>(p.pixels));
      }
    });
  }
}

template <typename A>
size_t bytes_of(const Projection& p) {
  return kernel_rows(p) * padded<A>(p.channels) * sizeof(A) + pixel_sums<A>(p).bytes;
}

}  // namespace

size_t workspace_bytes(const Projection& p) {
  if (is_empty(p)) return 0;
  return p.dtype == DType::kFloat64 ? bytes_of<double>(p) : bytes_of<float>(p);
}

void run(const Projection& p, const ProjectionBuffers& b, const ParallelFor& parallel_for) {
  if (is_empty(p)) return;
  switch (p.dtype) {
    case DType::kFloat32: return run_type<float>(p, b, parallel_for);
    case DType::kFloat64: return run_type<double>(p, b, parallel_for);
    case DType::kFloat16: return run_type<Float16>(p, b, parallel_for);
    case DType::kBFloat16: return run_type<BFloat16>(p, b, parallel_for);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET
