// SPDX-License-Identifier: Apache-2.0
// Computes gradients with respect to the filters, with vector lanes along the channels of a head. Valid for every
// problem.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_FILTERS_H_
#define KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_FILTERS_H_

#include <algorithm>

#include "cpu/kernels/operands.h"
#include "cpu/simd/channel_blocks.h"
#include "cpu/simd/softmax.h"
#include "cpu/simd/vec.h"
#include "window.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes {

// Computes one row of gradients with respect to the spatial factor: sums[t] is the sum of grad * C[t] * inputs over the
// channels of the head. `write_filter_gradient` turns the sums into the gradient with respect to logits.
template <typename T, FilterKind kKind>
void spatial_row(const Problem& p, const Operands<T>& o, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>, kGroup = 4;
  const int64_t C = p.channels, head_channels = C / p.heads, K = taps(p);
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  const Taps rows = taps_of_output(down, i);
  const T* channel = uses_channel(kKind) ? o.channel + n * K * C : nullptr;
  FilterBuffer<A> sums_buffer(K), probabilities(kKind == FilterKind::kSoftmax ? K : 1);
  A* sums = sums_buffer.get();
  for (int64_t j = 0; j < p.out_width; ++j) {
    const Taps columns = taps_of_output(along, j);
    const int64_t position = (n * p.out_height + i) * p.out_width + j;
    for (int64_t h = 0; h < p.heads; ++h) {
      std::fill(sums, sums + K, A(0));
      const T* grad = o.grad + position * C + h * head_channels;
      for (int64_t a = 0; a < rows.count; ++a) {
        const int64_t line = (n * p.height + rows.source + a * rows.source_step) * p.width;
        const int64_t first = (rows.tap + a) * p.kernel_w + columns.tap;
        for (int64_t b = 0; b < columns.count; b += kGroup) {
          // Four taps share the loads of grad. At the end of a row of the window, the last tap is repeated.
          const T *x[kGroup], *f[kGroup] = {};
          for (int k = 0; k < kGroup; ++k) {
            const int64_t tap = std::min(b + k, columns.count - 1);
            x[k] = o.inputs + (line + columns.source + tap * columns.source_step) * C + h * head_channels;
            if constexpr (uses_channel(kKind)) f[k] = channel + (first + tap) * C + h * head_channels;
          }
          Vec<A> total[kGroup] = {};
          int64_t c = 0;
          for (; c + L <= head_channels; c += L) {
            const Vec<A> g = load(grad + c);
#pragma GCC unroll 4
            for (int k = 0; k < kGroup; ++k) {
              if constexpr (uses_channel(kKind)) {
                total[k] += (g * load(f[k] + c)) * load(x[k] + c);
              } else {
                total[k] += g * load(x[k] + c);
              }
            }
          }
          if (c < head_channels) {
            const int64_t rest = head_channels - c;
            const Vec<A> g = load(grad + c, rest);
#pragma GCC unroll 4
            for (int k = 0; k < kGroup; ++k) {
              if constexpr (uses_channel(kKind)) {
                total[k] += (g * load(f[k] + c, rest)) * load(x[k] + c, rest);
              } else {
                total[k] += g * load(x[k] + c, rest);
              }
            }
          }
          for (int k = 0; k < kGroup && b + k < columns.count; ++k) sums[first + b + k] = sum<A>(total[k]);
        }
      }
      const int64_t filter = (position * p.heads + h) * K;
      write_filter_gradient<T, kKind>(o, filter, K, sums, probabilities.get());
    }
  }
}

// Computes the terms of the gradient with respect to the channel factor for `out_rows` of one sample and `tap_rows` of
// the filter, and adds them to `partial`, which has the shape [taps, channels].
template <typename T, FilterKind kKind>
void channel_rows(const Problem& p, const Operands<T>& o, int64_t n, const Range& out_rows, const Range& tap_rows,
                  Accumulator<T>* partial) {
  using A = Accumulator<T>;
  constexpr int64_t kColumns = 64;  // the grad and inputs of a tile of columns stay in the L1 cache
  const int64_t C = p.channels, head_channels = C / p.heads, K = taps(p);
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  for (int64_t i = out_rows.begin; i < out_rows.end; ++i) {
    const Taps rows = taps_of_output(down, i);
    const int64_t first_row = std::max<int64_t>(tap_rows.begin - rows.tap, 0);
    const int64_t end_row = std::min(tap_rows.end - rows.tap, rows.count);
    const int64_t out_line = (n * p.out_height + i) * p.out_width;
    for (int64_t tile = 0; tile < p.out_width; tile += kColumns) {
      const Range tile_columns = {tile, std::min(tile + kColumns, p.out_width)};
      const Range columns = taps_between(along, tile_columns, {0, p.width});
      for (int64_t h = 0; h < p.heads; ++h) {
        for_blocks<A>(head_channels, [&](int64_t offset, auto block, int64_t count) {
          constexpr int kBlock = decltype(block)::value, kVectors = std::max(kBlock, 1);
          const int64_t c = h * head_channels + offset;
          for (int64_t a = first_row; a < end_row; ++a) {
            const int64_t u = rows.tap + a;
            const int64_t line = (n * p.height + rows.source + a * rows.source_step) * p.width;
            for (int64_t v = columns.begin; v < columns.end; ++v) {
              const Range range = outputs_of_tap(along, v);
              const int64_t first = std::max(range.begin, tile), last = std::min(range.end, tile_columns.end);
              if (first >= last) continue;
              const int64_t t = u * p.kernel_w + v;
              Vec<A> total[kVectors] = {};
              for (int64_t j = first; j < last; ++j) {
                const int64_t x = j * p.stride_w - p.pad_w + v * p.dilation_w;
                A s{};
                if constexpr (kKind == FilterKind::kMul) {
                  s = to_accumulator(o.spatial[((out_line + j) * p.heads + h) * K + t]);
                }
#pragma GCC unroll 4
                for (int k = 0; k < kVectors; ++k) {
                  Vec<A> g = load_block<kBlock>(o.grad + (out_line + j) * C + c, k, count);
                  if constexpr (kKind == FilterKind::kMul) g *= s;
                  total[k] += g * load_block<kBlock>(o.inputs + (line + x) * C + c, k, count);
                }
              }
              A* into = partial + t * C + c;
#pragma GCC unroll 4
              for (int k = 0; k < kVectors; ++k) {
                store_block<kBlock>(into, k, count, load_block<kBlock>(into, k, count) + total[k]);
              }
            }
          }
        });
      }
    }
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::channel_lanes

#endif  // KERAS_DYNFILTER_CPU_KERNELS_CHANNEL_LANES_FILTERS_H_
