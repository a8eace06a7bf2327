// SPDX-License-Identifier: Apache-2.0
// Kernels for local filters over few channels per head, with vector lanes along the taps of a row of the window. Most
// of the data are filters, so the kernels read the filters once and in order.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_TAP_LANES_H_
#define KERAS_DYNFILTER_CPU_KERNELS_TAP_LANES_H_

#include <algorithm>

#include "cpu/choose_kernel.h"
#include "cpu/kernels/operands.h"
#include "cpu/simd/softmax.h"
#include "cpu/simd/vec.h"
#include "window.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::tap_lanes {

// total += w[0..count) * x[0..count), lane by lane.
template <typename A, typename T>
KDF_INLINE void accumulate(const A* w, const T* x, int64_t count, Vec<A>& total) {
  constexpr int L = kLanes<A>;
  int64_t v = 0;
  for (; v + L <= count; v += L) total += load(w + v) * load(x + v);
  if (v < count) total += load(w + v, count - v) * load(x + v, count - v);
}

// The dot product of a filter with the window around one position, for one channel. kWindowCols is the number of taps
// in a row of the window if it is known at compile time, else 0.
template <int kWindowCols, typename A, typename T>
KDF_INLINE A dot(const A* filter, const T* image, const Taps& rows, const Taps& columns, int64_t kernel_w,
                 int64_t row_pitch, int64_t pixel_pitch) {
  const A* w = filter + rows.tap * kernel_w + columns.tap;
  const T* line = image + columns.source * pixel_pitch;
  if (columns.source_step * pixel_pitch == 1) {
    Vec<A> total{};
    for (int64_t a = 0; a < rows.count; ++a, w += kernel_w) {
      const T* x = line + (rows.source + a * rows.source_step) * row_pitch;
      accumulate(w, x, kWindowCols ? kWindowCols : columns.count, total);
    }
    return sum<A>(total);
  }
  A total = 0;
  for (int64_t a = 0; a < rows.count; ++a, w += kernel_w) {
    const T* x = line + (rows.source + a * rows.source_step) * row_pitch;
    for (int64_t v = 0; v < columns.count; ++v) {
      total += w[v] * to_accumulator(x[v * columns.source_step * pixel_pitch]);
    }
  }
  return total;
}

// Computes one row of outputs.
template <typename T, FilterKind kKind>
void output_row(const Problem& p, const Operands<T>& o, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  const int64_t C = p.channels, head_channels = C / p.heads, K = taps(p);
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  const Taps rows = taps_of_output(down, i);
  const T* image = o.inputs + n * p.height * p.width * C;
  const bool copies = kKind == FilterKind::kSoftmax || !std::is_same_v<A, T>;
  FilterBuffer<A> buffer(copies ? K : 1);
  for (int64_t j = 0; j < p.out_width; ++j) {
    const Taps columns = taps_of_output(along, j);
    const int64_t position = (n * p.out_height + i) * p.out_width + j;
    for (int64_t h = 0; h < p.heads; ++h) {
      const T* filter = o.spatial + (position * p.heads + h) * K;
      const A* values = buffer.get();
      A scale = 1;
      if constexpr (kKind == FilterKind::kSoftmax) {
        scale = exponentials(filter, K, buffer.get()).scale;
      } else if constexpr (std::is_same_v<A, T>) {
        values = filter;
      } else {
        constexpr int L = kLanes<A>;
        int64_t t = 0;
        for (; t + L <= K; t += L) store(buffer.get() + t, load(filter + t));
        if (t < K) store(buffer.get() + t, load(filter + t, K - t), K - t);
      }
      for (int64_t c = h * head_channels; c < (h + 1) * head_channels; ++c) {
        const auto product = [&](auto window_cols) {
          return dot<decltype(window_cols)::value, A>(values, image + c, rows, columns, p.kernel_w, p.width * C, C);
        };
        A total;
        switch (columns.count) {  // known at compile time for the windows that the papers use
          case 9: total = product(std::integral_constant<int, 9>{}); break;
          case 11: total = product(std::integral_constant<int, 11>{}); break;
          case 13: total = product(std::integral_constant<int, 13>{}); break;
          default: total = product(std::integral_constant<int, 0>{});
        }
        o.result[position * C + c] = from_accumulator<T>(total * scale);
      }
    }
  }
}

// Computes one row of gradients with respect to the spatial filters.
template <typename T, FilterKind kKind>
void spatial_row(const Problem& p, const Operands<T>& o, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  const int64_t C = p.channels, head_channels = C / p.heads, K = taps(p);
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  const Taps rows = taps_of_output(down, i);
  const T* image = o.inputs + n * p.height * p.width * C;
  FilterBuffer<A> sums_buffer(K), probabilities(kKind == FilterKind::kSoftmax ? K : 1);
  A* sums = sums_buffer.get();
  for (int64_t j = 0; j < p.out_width; ++j) {
    const Taps columns = taps_of_output(along, j);
    const int64_t position = (n * p.out_height + i) * p.out_width + j;
    const int64_t step = columns.source_step * C;
    for (int64_t h = 0; h < p.heads; ++h) {
      std::fill(sums, sums + K, A(0));
      for (int64_t c = h * head_channels; c < (h + 1) * head_channels; ++c) {
        const A g = to_accumulator(o.grad[position * C + c]);
        for (int64_t a = 0; a < rows.count; ++a) {
          const T* x = image + ((rows.source + a * rows.source_step) * p.width + columns.source) * C + c;
          A* into = sums + (rows.tap + a) * p.kernel_w + columns.tap;
          int64_t v = 0;
          if (step == 1) {
            for (; v + L <= columns.count; v += L) store(into + v, load(into + v) + g * load(x + v));
            if (v < columns.count) {
              const int64_t rest = columns.count - v;
              store(into + v, load(into + v, rest) + g * load(x + v, rest), rest);
            }
          } else {
            for (; v < columns.count; ++v) into[v] += g * to_accumulator(x[v * step]);
          }
        }
      }
      write_filter_gradient<T, kKind>(o, (position * p.heads + h) * K, K, sums, probabilities.get());
    }
  }
}

// Computes one row of gradients with respect to the inputs. Every output adds to the pixels in its window. The outer
// loops are over the taps, so that the terms of each pixel are added in a fixed order. `softmax` normalises logits.
template <typename T, FilterKind kKind>
void inputs_row(const Problem& p, const Operands<T>& o, const Softmax<Accumulator<T>>* softmax, int64_t n, int64_t y) {
  using A = Accumulator<T>;
  const int64_t C = p.channels, head_channels = C / p.heads, K = taps(p);
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  const Taps rows = taps_of_input(down, tap_steps(down), y);
  T* result = o.result + (n * p.height + y) * p.width * C;
  alignas(64) A total[kTapLanesTile], values[kTapLanesTile];
  for (int64_t tile = 0; tile < p.width; tile += kTapLanesTile) {
    const int64_t tile_end = std::min(p.width, tile + kTapLanesTile);
    const Range columns = taps_between(along, {0, p.out_width}, {tile, tile_end});
    for (int64_t c = 0; c < C; ++c) {
      const int64_t h = c / head_channels;
      std::fill(total, total + (tile_end - tile), A(0));
      int64_t u = rows.tap, i = rows.source;
      for (int64_t a = 0; a < rows.count; ++a, u += rows.tap_step, i += rows.source_step) {
        const int64_t line = (n * p.out_height + i) * p.out_width;
        for (int64_t v = columns.begin; v < columns.end; ++v) {
          // x = j * stride + offset is in the tile and in the image for j in [first, last).
          const int64_t offset = v * p.dilation_w - p.pad_w;
          const Range range = outputs_of_tap(along, v);
          const int64_t first = std::max(range.begin, ceil_div(tile - offset, p.stride_w));
          const int64_t last = std::min(range.end, ceil_div(tile_end - offset, p.stride_w));
          if (first >= last) continue;
          const T* s = o.spatial + ((line + first) * p.heads + h) * K + u * p.kernel_w + v;
          const T* g = o.grad + (line + first) * C + c;
          A* into = total + first * p.stride_w + offset - tile;
          const int64_t count = last - first;
          if constexpr (kKind == FilterKind::kSoftmax) {
            constexpr int L = kLanes<A>;
            const Softmax<A>* output_softmax = softmax + (line + first) * p.heads + h;
            for (int64_t j = 0; j < count; ++j) {
              values[j] = to_accumulator(s[j * p.heads * K]) - output_softmax[j * p.heads].maximum;
            }
            int64_t j = 0;
            for (; j + L <= count; j += L) store(values + j, exp_of_difference<A>(load(values + j)));
            if (j < count) store(values + j, exp_of_difference<A>(load(values + j, count - j)), count - j);
            for (j = 0; j < count; ++j) {
              into[j * p.stride_w] += values[j] * output_softmax[j * p.heads].scale * to_accumulator(g[j * C]);
            }
          } else {
            for (int64_t j = 0; j < count; ++j) {
              into[j * p.stride_w] += to_accumulator(s[j * p.heads * K]) * to_accumulator(g[j * C]);
            }
          }
        }
      }
      for (int64_t x = tile; x < tile_end; ++x) result[x * C + c] = from_accumulator<T>(total[x - tile]);
    }
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::tap_lanes

#endif  // KERAS_DYNFILTER_CPU_KERNELS_TAP_LANES_H_
