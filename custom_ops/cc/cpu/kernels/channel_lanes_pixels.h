// SPDX-License-Identifier: Apache-2.0
// Computes the output and the gradient with respect to the inputs, with vector lanes along the channels of a head.
// Valid for every problem, and fast for many channels.
//
// Each result pixel is a sum over the source pixels that share a window with it. For the output, the source is the
// inputs and the filter belongs to the result pixel. For the gradient, the source is grad and the filter belongs to the
// source pixel. Neighbouring results share source pixels: kChannelTiles computes four results at a time in the inner
// part of a row and loads each source pixel once.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_PIXELS_H_
#define KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_PIXELS_H_

#include <algorithm>

#include "cpu/choose_kernel.h"
#include "cpu/kernels/operands.h"
#include "cpu/simd/channel_blocks.h"
#include "cpu/simd/softmax.h"
#include "cpu/simd/vec.h"
#include "window.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes {

template <typename T, FilterKind kKind, bool kForward>
class Rows {
  using A = Accumulator<T>;
  static constexpr int64_t L = kLanes<A>, kPixels = 4;
  // Whether each result has its own filter, which is converted or normalised once for all channels of the head.
  static constexpr bool kOwn = kForward && uses_spatial(kKind);
  static constexpr bool kCopies = kOwn && (kKind == FilterKind::kSoftmax || !std::is_same_v<A, T>);

 public:
  // `softmax` normalises logits in the gradient with respect to the inputs.
  Rows(const Problem& p, const Operands<T>& o, Choice choice, const Softmax<A>* softmax)
      : p_(p),
        o_(o),
        softmax_(softmax),
        tiles_(choice.kernel == Kernel::kChannelTiles),
        streaming_(choice.streams && reinterpret_cast<uintptr_t>(o.result) % kVectorBytes == 0),
        row_steps_(tap_steps(vertical_axis(p))),
        column_steps_(tap_steps(horizontal_axis(p))),
        taps_(taps(p)),
        head_channels_(p.channels / p.heads),
        width_(kForward ? p.out_width : p.width),
        source_width_(kForward ? p.width : p.out_width),
        copies_(kCopies ? (tiles_ ? kPixels : 1) * taps_ : 1) {}

  ~Rows() {
    if (streaming_) finish_streaming();
  }

  void run(int64_t n, int64_t i) {
    const Axis down = vertical_axis(p_), along = horizontal_axis(p_);
    rows_ = kForward ? taps_of_output(down, i) : taps_of_input(down, row_steps_, i);
    source_ =
        (kForward ? o_.inputs : o_.grad) + n * (kForward ? p_.height : p_.out_height) * source_width_ * p_.channels;
    result_ = o_.result + (n * (kForward ? p_.out_height : p_.height) + i) * width_ * p_.channels;
    channel_ = uses_channel(kKind) ? o_.channel + n * taps_ * p_.channels : nullptr;
    first_filter_ = n * p_.out_height * p_.out_width + (kForward ? i * p_.out_width : 0);

    // The windows of the result pixels [before, inner_end) are inside the row.
    const int64_t before = kForward ? p_.pad_w : p_.kernel_w - 1 - p_.pad_w;
    const int64_t inner_end = source_width_ - (p_.kernel_w - 1) + before;
    for (int64_t j = 0; j < width_;) {
      const bool tile = tiles_ && j >= before && j + kPixels <= std::min(inner_end, width_);
      for (int64_t h = 0; h < p_.heads; ++h) {
        if constexpr (kOwn) prepare(j, tile ? kPixels : 1, h);
        if (!tile) {
          pixel(j, kForward ? taps_of_output(along, j) : taps_of_input(along, column_steps_, j), h);
        } else if (p_.kernel_w == 3) {
          tiled_head<3>(j, h);
        } else {
          tiled_head<5>(j, h);
        }
      }
      j += tile ? kPixels : 1;
    }
  }

 private:
  // Sets own_ to the filters of `count` results, starting at j.
  KDF_INLINE void prepare(int64_t j, int64_t count, int64_t h) {
    for (int64_t q = 0; q < count; ++q) {
      const T* filter = o_.spatial + ((first_filter_ + j + q) * p_.heads + h) * taps_;
      if constexpr (kCopies) {
        A* copy = copies_.get() + q * taps_;
        if constexpr (kKind == FilterKind::kSoftmax) {
          scale_[q] = exponentials(filter, taps_, copy).scale;
        } else {
          int64_t t = 0;
          for (; t + L <= taps_; t += L) store(copy + t, load(filter + t));
          if (t < taps_) store(copy + t, load(filter + t, taps_ - t), taps_ - t);
        }
        own_[q] = copy;
      } else {
        own_[q] = filter;
      }
    }
  }

  // The spatial factor of tap t of result q. `pixel` is the index of the source pixel in the sample.
  KDF_INLINE A spatial(int64_t q, int64_t pixel, int64_t h, int64_t t) const {
    if constexpr (!uses_spatial(kKind)) {
      return A(0);
    } else if constexpr (kOwn) {
      return own_[q][t];
    } else {
      const int64_t filter = (first_filter_ + pixel) * p_.heads + h;
      const A s = to_accumulator(o_.spatial[filter * taps_ + t]);
      if constexpr (kKind != FilterKind::kSoftmax) return s;
      return exponential(s - softmax_[filter].maximum) * softmax_[filter].scale;
    }
  }

  KDF_INLINE static Vec<A> product(A s, Vec<A> c, Vec<A> x) {
    if constexpr (kKind == FilterKind::kChannel) return c * x;
    if constexpr (kKind == FilterKind::kMul) return (s * c) * x;
    if constexpr (kKind == FilterKind::kAdd) return (s + c) * x;
    return s * x;
  }

  template <int kBlock>
  KDF_INLINE void finish(int64_t j, int64_t q, int64_t c, int k, int64_t count, Vec<A> total) {
    if constexpr (kOwn && kKind == FilterKind::kSoftmax) total *= scale_[q];
    T* result = result_ + j * p_.channels + c;
    if constexpr (std::is_floating_point_v<T> && kBlock > 0) {
      if (streaming_) return stream(result + k * L, total);
    }
    store_block<kBlock>(result, k, count, total);
  }

  void pixel(int64_t j, const Taps& columns, int64_t h) {
    const int64_t row_count = columns.count > 0 ? rows_.count : 0;  // no loop over rows without taps
    for_blocks<A>(head_channels_, [&](int64_t offset, auto block, int64_t count) {
      constexpr int kBlock = decltype(block)::value, kVectors = std::max(kBlock, 1);
      const int64_t c = h * head_channels_ + offset;
      Vec<A> total[kVectors] = {};
      int64_t u = rows_.tap, y = rows_.source;
      for (int64_t a = 0; a < row_count; ++a, u += rows_.tap_step, y += rows_.source_step) {
        int64_t t = u * p_.kernel_w + columns.tap, x = y * source_width_ + columns.source;
        for (int64_t b = 0; b < columns.count; ++b, t += columns.tap_step, x += columns.source_step) {
          const A s = spatial(0, x, h, t);
#pragma GCC unroll 4
          for (int k = 0; k < kVectors; ++k) {
            Vec<A> factor{};
            if constexpr (uses_channel(kKind)) factor = load_block<kBlock>(channel_ + t * p_.channels + c, k, count);
            total[k] += product(s, factor, load_block<kBlock>(source_ + x * p_.channels + c, k, count));
          }
        }
      }
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) finish<kBlock>(j, 0, c, k, count, total[k]);
    });
  }

  template <int kWindowCols>
  void tiled_head(int64_t j, int64_t h) {
    int64_t c = h * head_channels_;
    const int64_t end = c + head_channels_;
    for (; c + 2 * L <= end; c += 2 * L) tile<kWindowCols, 2>(j, h, c);
    if (c < end) tile<kWindowCols, 1>(j, h, c);
  }

  // Computes kPixels results, starting at j, for kVectors vectors of channels, starting at c. Not inlined, and with
  // local variables only, so that the compiler keeps the accumulators in registers.
  template <int kWindowCols, int kVectors>
  __attribute__((noinline)) void tile(int64_t j, int64_t h, int64_t c) {
    const int64_t C = p_.channels, K = taps_, filters = p_.heads * K;
    const Taps rows = rows_;
    // The leftmost source pixel of the first result, in the first row of the window.
    const int64_t left = kForward ? j - p_.pad_w : j + p_.pad_w - (kWindowCols - 1);
    const int64_t x = rows.source * source_width_ + left;
    const int64_t step = rows.source_step * source_width_, tap_step = rows.tap_step * kWindowCols;
    const T* source = source_ + x * C + c;
    const T* channel = uses_channel(kKind) ? channel_ + rows.tap * kWindowCols * C + c : nullptr;
    const A* own[kPixels];
#pragma GCC unroll 4
    for (int q = 0; q < kPixels; ++q) own[q] = kOwn ? own_[q] + rows.tap * kWindowCols : nullptr;
    int64_t filter = (first_filter_ + x) * p_.heads + h;  // of source pixel 0, if source pixels have the filters
    int64_t t = rows.tap * kWindowCols;

    // Prefetches source pixels of the tile after the next tile, in the source row that no result has read yet. The
    // hardware does not predict reads that go from one block of channels to the next, so these reads would be slow.
    // Each block of channels prefetches one part of the pixels, in memory order.
    const int64_t newest = kForward ? rows.count - 1 : 0;
    const T* ahead =
        source_ + ((rows.source + newest * rows.source_step) * source_width_ + j + 2 * kPixels) * C + kPixels * c;

    Vec<A> total[kPixels][kVectors] = {};
    for (int64_t a = 0; a < rows.count; ++a) {
      Vec<A> factor[kWindowCols][kVectors] = {};
      if constexpr (uses_channel(kKind)) {
#pragma GCC unroll 5
        for (int v = 0; v < kWindowCols; ++v) {
#pragma GCC unroll 4
          for (int k = 0; k < kVectors; ++k) factor[v][k] = load(channel + v * C + k * L);
        }
        channel += tap_step * C;
      }
      const T* pixel = source;
#pragma GCC unroll 8
      for (int m = 0; m < kPixels + kWindowCols - 1; ++m, pixel += C) {
        Vec<A> value[kVectors];
#pragma GCC unroll 4
        for (int k = 0; k < kVectors; ++k) value[k] = load(pixel + k * L);
        if (m >= kWindowCols - 1 && a == newest) {
#pragma GCC unroll 4
          for (int k = 0; k < kVectors; ++k) __builtin_prefetch(ahead + k * L);
          ahead += kVectors * L;
        }
#pragma GCC unroll 5
        for (int v = 0; v < kWindowCols; ++v) {
          // Source m is at tap v of result q.
          const int q = kForward ? m - v : m + v - (kWindowCols - 1);
          if (q < 0 || q >= kPixels) continue;
          A s{};
          if constexpr (kOwn) {
            s = own[q][v];
          } else if constexpr (uses_spatial(kKind)) {
            s = to_accumulator(o_.spatial[filter * K + m * filters + t + v]);
            if constexpr (kKind == FilterKind::kSoftmax) {
              const Softmax<A>& softmax = softmax_[filter + m * p_.heads];
              s = exponential(s - softmax.maximum) * softmax.scale;
            }
          }
#pragma GCC unroll 4
          for (int k = 0; k < kVectors; ++k) total[q][k] += product(s, factor[v][k], value[k]);
        }
      }
      source += step * C;
      filter += step * p_.heads;
      t += tap_step;
#pragma GCC unroll 4
      for (int q = 0; q < kPixels; ++q) own[q] += kOwn ? tap_step : 0;
    }
#pragma GCC unroll 4
    for (int q = 0; q < kPixels; ++q) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) finish<1>(j + q, q, c, k, L, total[q][k]);
    }
  }

  const Problem& p_;
  const Operands<T>& o_;
  const Softmax<A>* softmax_;
  const bool tiles_, streaming_;
  const TapSteps row_steps_, column_steps_;
  const int64_t taps_, head_channels_, width_, source_width_;
  FilterBuffer<A> copies_;
  Taps rows_;
  const T *source_, *channel_;
  T* result_;
  int64_t first_filter_;  // the first filter of the result row (forward) or of the sample (gradient)
  const A* own_[kPixels];
  A scale_[kPixels];
};

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes

#endif  // KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_PIXELS_H_
