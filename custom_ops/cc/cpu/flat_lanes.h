// SPDX-License-Identifier: Apache-2.0
// Depth-wise convolution of few channels at horizontal stride 1: vector lanes along a row of the image, pixels and
// channels as they lie in memory. The number of channels divides the lanes, so a filter tap is one vector.
#ifndef KERAS_DYNFILTER_CPU_FLAT_LANES_H_
#define KERAS_DYNFILTER_CPU_FLAT_LANES_H_

#include <algorithm>

#include "cpu/axis.h"
#include "cpu/operands.h"
#include "cpu/vec.h"

namespace keras_dynfilter::cpu::flat_lanes {

template <typename T>
bool applies(const Problem& p) {
  constexpr int L = kLanes<Accumulator<T>>;
  return p.weight == Weight::kChannel && p.stride_w == 1 && p.channels < L && L % p.channels == 0;
}

// Lane l holds channel l % channels of a filter tap.
template <typename T>
KDF_INLINE Vec<Accumulator<T>> tap_vector(const T* channel, int64_t t, int64_t channels) {
  using A = Accumulator<T>;
  alignas(64) A lanes[kLanes<A>];
  for (int l = 0; l < kLanes<A>; ++l) lanes[l] = to_accumulator(channel[t * channels + l % channels]);
  return load(lanes);
}

// A row of outputs, or of gradients by the inputs: a convolution of the source with the filter or its mirror image.
template <typename T, bool kForward>
void row(const Problem& p, const Operands<T>& o, int64_t n, int64_t i) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  constexpr int64_t kTile = 32 * L;
  const int64_t C = p.channels;
  const Taps rows = kForward ? taps_of_output(vertical(p), i) : taps_of_input(vertical(p), i);
  const int64_t width = kForward ? p.out_width : p.width, source_width = kForward ? p.width : p.out_width;
  const T* source = (kForward ? o.inputs : o.grad) + n * (kForward ? p.height : p.out_height) * source_width * C;
  const T* channel = o.channel + n * taps(p) * C;
  T* result = o.result + (n * (kForward ? p.out_height : p.height) + i) * width * C;
  alignas(64) A total[kTile];
  for (int64_t tile = 0; tile < width * C; tile += kTile) {
    const int64_t tile_end = std::min(width * C, tile + kTile);
    std::fill(total, total + kTile, A(0));
    int64_t u = rows.tap, y = rows.source;
    for (int64_t a = 0; a < rows.count; ++a, u += rows.tap_step, y += rows.source_step) {
      const T* line = source + y * source_width * C;
      for (int64_t v = 0; v < p.kernel_w; ++v) {
        const int64_t offset = kForward ? v * p.dilation_w - p.pad_w : p.pad_w - v * p.dilation_w;
        const int64_t first = std::max(tile, -offset * C);
        const int64_t last = std::min(tile_end, (source_width - offset) * C);
        if (first >= last) continue;
        // Tiles begin at a multiple of the lanes, -offset * C at a multiple of C: the lanes stay in step.
        const Vec<A> w = tap_vector(channel, u * p.kernel_w + v, C);
        const T* x = line + offset * C;
        int64_t q = first;
        for (; q + L <= last; q += L) store(total + q - tile, load(total + q - tile) + w * load(x + q));
        if (q < last) {
          const int64_t rest = last - q;
          store(total + q - tile, load(total + q - tile, rest) + w * load(x + q, rest), rest);
        }
      }
    }
    int64_t q = tile;
    for (; q + L <= tile_end; q += L) store(result + q, load(total + q - tile));
    if (q < tile_end) store(result + q, load(total + q - tile), tile_end - q);
  }
}

// Gradient by the filter, rows [begin, end) of one sample, added to partial sums [taps, channels].
template <typename T>
void channel_rows(const Problem& p, const Operands<T>& o, int64_t n, int64_t begin, int64_t end,
                  Accumulator<T>* partial) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  const int64_t C = p.channels;
  const Axis down = vertical(p), along = horizontal(p);
  for (int64_t u = 0; u < p.kernel_h; ++u) {
    const Range outputs = outputs_of_tap(down, u);
    for (int64_t v = 0; v < p.kernel_w; ++v) {
      const Range range = outputs_of_tap(along, v);
      Vec<A> total{};
      for (int64_t i = std::max(begin, outputs.begin); i < std::min(end, outputs.end); ++i) {
        const int64_t y = i * p.stride_h - p.pad_h + u * p.dilation_h;
        const T* g = o.grad + (n * p.out_height + i) * p.out_width * C;
        const T* x = o.inputs + ((n * p.height + y) * p.width + v * p.dilation_w - p.pad_w) * C;
        int64_t q = range.begin * C;
        const int64_t last = range.end * C;
        for (; q + L <= last; q += L) total += load(g + q) * load(x + q);
        if (q < last) total += load(g + q, last - q) * load(x + q, last - q);
      }
      for (int l = 0; l < L; ++l) partial[(u * p.kernel_w + v) * C + l % C] += total[l];
    }
  }
}

}  // namespace keras_dynfilter::cpu::flat_lanes

#endif  // KERAS_DYNFILTER_CPU_FLAT_LANES_H_
