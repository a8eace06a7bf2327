// SPDX-License-Identifier: Apache-2.0
// The family with vector lanes along the channels of a head: any weight, any window, best for many channels.
#ifndef KERAS_DYNFILTER_CPU_CHANNEL_LANES_H_
#define KERAS_DYNFILTER_CPU_CHANNEL_LANES_H_

#include <algorithm>

#include "cpu/axis.h"
#include "cpu/operands.h"
#include "cpu/softmax.h"
#include "cpu/vec.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL::channel_lanes {

// Calls body(offset, lanes) for blocks that cover [0, channels): four vectors at a time, then one, then the rest.
template <typename A, typename Body>
KDF_INLINE void for_blocks(int64_t channels, const Body& body) {
  constexpr int L = kLanes<A>;
  int64_t c = 0;
  for (; c + 4 * L <= channels; c += 4 * L) body(c, std::integral_constant<int, 4>{}, int64_t{L});
  for (; c + L <= channels; c += L) body(c, std::integral_constant<int, 1>{}, int64_t{L});
  if (c < channels) body(c, std::integral_constant<int, 0>{}, channels - c);
}

// kBlock vectors from p on; kBlock 0 is one vector of which `count` lanes exist.
template <int kBlock, typename T>
KDF_INLINE Vec<Accumulator<T>> load_block(const T* p, int b, int64_t count) {
  if constexpr (kBlock == 0) return load(p, count);
  return load(p + b * kLanes<Accumulator<T>>);
}

template <int kBlock, typename T>
KDF_INLINE void store_block(T* p, int b, int64_t count, Vec<Accumulator<T>> v) {
  if constexpr (kBlock == 0) {
    store(p, v, count);
  } else {
    store(p + b * kLanes<Accumulator<T>>, v);
  }
}

template <Weight kWeight, typename A>
KDF_INLINE Vec<A> weigh(A s, Vec<A> c, Vec<A> x) {
  if constexpr (kWeight == Weight::kChannel) return c * x;
  if constexpr (kWeight == Weight::kMul) return (s * c) * x;
  if constexpr (kWeight == Weight::kAdd) return (s + c) * x;
  return s * x;
}

// Output (source: inputs) or gradient by the inputs (source: grad). Both gather, for one row of results, from the
// source pixels that share a window with each result; the window is that of the output pixel of the pair.
template <typename T, Weight kWeight, bool kForward>
void row(const Problem& p, const Operands<T>& o, const Softmax<Accumulator<T>>* stats, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  const int64_t C = p.channels, per_head = C / p.heads, K = taps(p);
  const Axis down = vertical(p), along = horizontal(p);
  const Taps rows = kForward ? taps_of_output(down, i) : taps_of_input(down, i);
  const int64_t width = kForward ? p.out_width : p.width, source_width = kForward ? p.width : p.out_width;
  const int64_t source_rows = n * (kForward ? p.height : p.out_height);
  const T* source = kForward ? o.inputs : o.grad;
  T* result = o.result + (n * (kForward ? p.out_height : p.height) + i) * width * C;
  const T* channel = uses_channel(kWeight) ? o.channel + n * K * C : nullptr;
  FilterBuffer<A> buffer(kWeight == Weight::kSoftmax && kForward ? K : 1);
  for (int64_t j = 0; j < width; ++j) {
    const Taps columns = kForward ? taps_of_output(along, j) : taps_of_input(along, j);
    for (int64_t h = 0; h < p.heads; ++h) {
      const T* own = nullptr;  // the filter of the result's own position
      Softmax<A> softmax{};
      if constexpr (uses_spatial(kWeight) && kForward) {
        own = o.spatial + (((n * p.out_height + i) * width + j) * p.heads + h) * K;
        if constexpr (kWeight == Weight::kSoftmax) softmax = exponentials(own, K, buffer.get());
      }
      for_blocks<A>(per_head, [&](int64_t offset, auto block, int64_t count) {
        constexpr int kBlock = decltype(block)::value, kVectors = std::max(kBlock, 1);
        const int64_t c = h * per_head + offset;
        Vec<A> total[kVectors] = {};
        int64_t u = rows.tap, y = rows.source;
        for (int64_t a = 0; a < rows.count; ++a, u += rows.tap_step, y += rows.source_step) {
          const int64_t line = (source_rows + y) * source_width;
          int64_t t = u * p.kernel_w + columns.tap, x = columns.source;
          for (int64_t b = 0; b < columns.count; ++b, t += columns.tap_step, x += columns.source_step) {
            A s{};
            if constexpr (uses_spatial(kWeight)) {
              if constexpr (kWeight == Weight::kSoftmax && kForward) {
                s = buffer.get()[t];
              } else if constexpr (kForward) {
                s = to_accumulator(own[t]);
              } else {
                const int64_t filter = (line + x) * p.heads + h;
                s = to_accumulator(o.spatial[filter * K + t]);
                if constexpr (kWeight == Weight::kSoftmax) {
                  s = exponential(s - stats[filter].maximum) * stats[filter].scale;
                }
              }
            }
#pragma GCC unroll 4
            for (int k = 0; k < kVectors; ++k) {
              const Vec<A> value = load_block<kBlock>(source + (line + x) * C + c, k, count);
              Vec<A> factor{};
              if constexpr (uses_channel(kWeight)) factor = load_block<kBlock>(channel + t * C + c, k, count);
              total[k] += weigh<kWeight, A>(s, factor, value);
            }
          }
        }
#pragma GCC unroll 4
        for (int k = 0; k < kVectors; ++k) {
          if constexpr (kWeight == Weight::kSoftmax && kForward) total[k] *= softmax.scale;
          store_block<kBlock>(result + j * C + c, k, count, total[k]);
        }
      });
    }
  }
}

// Gradient by the spatial factor, one row of filters: q[t] = sum over the head's channels of grad * C[t] * inputs.
// For logits p = softmax, it is p * (q - sum_t p q).
template <typename T, Weight kWeight>
void spatial_row(const Problem& p, const Operands<T>& o, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>, kGroup = 4;
  const int64_t C = p.channels, per_head = C / p.heads, K = taps(p);
  const Axis down = vertical(p), along = horizontal(p);
  const Taps rows = taps_of_output(down, i);
  const T* channel = uses_channel(kWeight) ? o.channel + n * K * C : nullptr;
  FilterBuffer<A> sums_buffer(K), weights_buffer(kWeight == Weight::kSoftmax ? K : 1);
  A* sums = sums_buffer.get();
  for (int64_t j = 0; j < p.out_width; ++j) {
    const Taps columns = taps_of_output(along, j);
    const int64_t position = (n * p.out_height + i) * p.out_width + j;
    for (int64_t h = 0; h < p.heads; ++h) {
      std::fill(sums, sums + K, A(0));
      const T* grad = o.grad + position * C + h * per_head;
      for (int64_t a = 0; a < rows.count; ++a) {
        const int64_t line = (n * p.height + rows.source + a * rows.source_step) * p.width;
        const int64_t first = (rows.tap + a) * p.kernel_w + columns.tap;
        for (int64_t b = 0; b < columns.count; b += kGroup) {
          // Four taps share the loads of grad; at the end of a row the last of them repeats.
          const T *x[kGroup], *f[kGroup] = {};
          for (int k = 0; k < kGroup; ++k) {
            const int64_t tap = std::min(b + k, columns.count - 1);
            x[k] = o.inputs + (line + columns.source + tap * columns.source_step) * C + h * per_head;
            if constexpr (uses_channel(kWeight)) f[k] = channel + (first + tap) * C + h * per_head;
          }
          Vec<A> total[kGroup] = {};
          int64_t c = 0;
          for (; c + L <= per_head; c += L) {
            const Vec<A> g = load(grad + c);
#pragma GCC unroll 4
            for (int k = 0; k < kGroup; ++k) {
              if constexpr (uses_channel(kWeight)) {
                total[k] += (g * load(f[k] + c)) * load(x[k] + c);
              } else {
                total[k] += g * load(x[k] + c);
              }
            }
          }
          if (c < per_head) {
            const int64_t rest = per_head - c;
            const Vec<A> g = load(grad + c, rest);
#pragma GCC unroll 4
            for (int k = 0; k < kGroup; ++k) {
              if constexpr (uses_channel(kWeight)) {
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
      write_filter_gradient<T, kWeight>(o, filter, K, sums, weights_buffer.get());
    }
  }
}

// Gradient by the channel factor, rows [begin, end) of one sample, added to partial sums [taps, channels].
template <typename T, Weight kWeight>
void channel_rows(const Problem& p, const Operands<T>& o, int64_t n, int64_t begin, int64_t end,
                  Accumulator<T>* partial) {
  using A = Accumulator<T>;
  constexpr int64_t kColumns = 64;  // a tile of grad and inputs that stays in the first-level cache
  const int64_t C = p.channels, per_head = C / p.heads, K = taps(p);
  const Axis down = vertical(p), along = horizontal(p);
  for (int64_t i = begin; i < end; ++i) {
    const Taps rows = taps_of_output(down, i);
    const int64_t out_line = (n * p.out_height + i) * p.out_width;
    for (int64_t tile = 0; tile < p.out_width; tile += kColumns) {
      for (int64_t h = 0; h < p.heads; ++h) {
        for_blocks<A>(per_head, [&](int64_t offset, auto block, int64_t count) {
          constexpr int kBlock = decltype(block)::value, kVectors = std::max(kBlock, 1);
          const int64_t c = h * per_head + offset;
          for (int64_t a = 0; a < rows.count; ++a) {
            const int64_t u = rows.tap + a;
            const int64_t line = (n * p.height + rows.source + a * rows.source_step) * p.width;
            for (int64_t v = 0; v < p.kernel_w; ++v) {
              const Range range = outputs_of_tap(along, v);
              const int64_t first = std::max(range.begin, tile), last = std::min(range.end, tile + kColumns);
              if (first >= last) continue;
              const int64_t t = u * p.kernel_w + v;
              Vec<A> total[kVectors] = {};
              for (int64_t j = first; j < last; ++j) {
                const int64_t x = j * p.stride_w - p.pad_w + v * p.dilation_w;
                A s{};
                if constexpr (kWeight == Weight::kMul) {
                  s = to_accumulator(o.spatial[((out_line + j) * p.heads + h) * K + t]);
                }
#pragma GCC unroll 4
                for (int k = 0; k < kVectors; ++k) {
                  Vec<A> g = load_block<kBlock>(o.grad + (out_line + j) * C + c, k, count);
                  if constexpr (kWeight == Weight::kMul) g *= s;
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

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL::channel_lanes

#endif  // KERAS_DYNFILTER_CPU_CHANNEL_LANES_H_
