// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution of few channels at horizontal stride 1, with vector lanes along a row of the image: pixels and
// channels in memory order. The number of channels divides the number of lanes, so a vector contains all channels of a
// filter tap, repeated.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_FLAT_LANES_H_
#define KERAS_DYNFILTER_CPU_KERNELS_FLAT_LANES_H_

#include <algorithm>

#include "cpu/choose_kernel.h"
#include "cpu/kernels/operands.h"
#include "cpu/simd/vec.h"
#include "window.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::flat_lanes {

// A filter tap as a vector: lane l holds channel l % channels.
template <typename T>
KDF_INLINE Vec<Accumulator<T>> tap_vector(const T* channel, int64_t t, int64_t channels) {
  using A = Accumulator<T>;
  alignas(64) A lanes[kLanes<A>];
  for (int64_t c = 0; c < channels; ++c) lanes[c] = to_accumulator(channel[t * channels + c]);
  for (int64_t l = channels; l < kLanes<A>; ++l) lanes[l] = lanes[l - channels];
  return load(lanes);
}

// Computes rows of outputs (kForward) or of gradients with respect to the inputs, by a convolution of the source with
// the filter or with the mirrored filter.
template <typename T, bool kForward>
class Rows {
  using A = Accumulator<T>;
  static constexpr int64_t L = kLanes<A>;

 public:
  Rows(const Problem& p, const Operands<T>& o)
      : p_(p), o_(o), halo_((p.kernel_w - 1) * p.dilation_w * p.channels), tile_(flat_tile(p, L)) {}

  // Computes row `y` of sample n. Returns false if the filter is not finite: this kernel multiplies taps outside the
  // image by zero instead of skipping them, which is correct only for finite taps.
  bool run(int64_t n, int64_t y) {
    if (n != sample_) prepare(n);
    if (!finite_) return false;
    const int64_t C = p_.channels;
    const Axis down = vertical_axis(p_);
    const Taps rows = kForward ? taps_of_output(down, y) : taps_of_input(down, tap_steps(down), y);
    const int64_t height = kForward ? p_.height : p_.out_height, width = kForward ? p_.width : p_.out_width;
    const int64_t out_height = kForward ? p_.out_height : p_.height, out_width = kForward ? p_.out_width : p_.width;
    const T* source = (kForward ? o_.inputs : o_.grad) + n * height * width * C;
    T* result = o_.result + (n * out_height + y) * out_width * C;
    const int64_t begin = (kForward ? -p_.pad_w : p_.pad_w) * C - (kForward ? 0 : halo_);
    const int64_t pitch = tile_ + halo_;
    for (int64_t tile = 0; tile < out_width * C; tile += tile_) {
      const int64_t count = std::min(tile_, out_width * C - tile);
      for (int64_t a = 0; a < rows.count; ++a) {
        const T* line = source + (rows.source + a * rows.source_step) * width * C;
        copy_padded(line, tile + begin, width * C, scratch_ + a * pitch, ceil_div(count, L) * L + halo_);
      }
      int64_t q = 0;
      for (; q + 4 * L <= count; q += 4 * L) convolve<4>(rows, pitch, q, result + tile + q, 4 * L);
      for (; q < count; q += L) convolve<1>(rows, pitch, q, result + tile + q, std::min(L, count - q));
    }
    return true;
  }

 private:
  void prepare(int64_t n) {
    sample_ = n;
    const T* channel = o_.channel + n * taps(p_) * p_.channels;
    Vec<A> zeros{};
    for (int64_t t = 0; t < taps(p_); ++t) {
      taps_[t] = tap_vector(channel, t, p_.channels);
      zeros += taps_[t] * A(0);
    }
    finite_ = sum<A>(zeros) == A(0);
  }

  // Sets scratch[k] to line[first + k], or to zero if first + k is outside [0, size).
  static void copy_padded(const T* line, int64_t first, int64_t size, A* scratch, int64_t count) {
    const int64_t begin = std::clamp<int64_t>(-first, 0, count), end = std::clamp<int64_t>(size - first, begin, count);
    std::fill(scratch, scratch + begin, A(0));
    int64_t k = begin;
    for (; k + L <= end; k += L) store(scratch + k, load(line + first + k));
    if (k < end) store(scratch + k, load(line + first + k, end - k), end - k);
    std::fill(scratch + end, scratch + count, A(0));
  }

  template <int kVectors>
  KDF_INLINE void convolve(const Taps& rows, int64_t pitch, int64_t q, T* result, int64_t count) {
    const int64_t step = p_.dilation_w * p_.channels;
    Vec<A> total[kVectors] = {};
    int64_t u = rows.tap;
    for (int64_t a = 0; a < rows.count; ++a, u += rows.tap_step) {
      const A* x = scratch_ + a * pitch + q + (kForward ? 0 : halo_);
      for (int64_t v = 0; v < p_.kernel_w; ++v, x += kForward ? step : -step) {
        const Vec<A> w = taps_[u * p_.kernel_w + v];
#pragma GCC unroll 4
        for (int k = 0; k < kVectors; ++k) total[k] += w * load(x + k * L);
      }
    }
    if (count == kVectors * L) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) store(result + k * L, total[k]);
    } else {
      store(result, total[0], count);
    }
  }

  const Problem& p_;
  const Operands<T>& o_;
  const int64_t halo_, tile_;
  int64_t sample_ = -1;
  bool finite_ = false;
  Vec<A> taps_[kFlatMaxTaps];
  alignas(64) A scratch_[kFlatScratch];
};

// Computes the terms of the gradient with respect to the channel filter for `out_rows` of one sample and `tap_rows` of
// the filter, and adds them to `partial`, which has the shape [taps, channels].
template <typename T>
void channel_rows(const Problem& p, const Operands<T>& o, int64_t n, const Range& out_rows, const Range& tap_rows,
                  Accumulator<T>* partial) {
  using A = Accumulator<T>;
  constexpr int L = kLanes<A>;
  const int64_t C = p.channels;
  const Axis down = vertical_axis(p), along = horizontal_axis(p);
  const Range columns = taps_between(along, {0, p.out_width}, {0, p.width});
  for (int64_t u = tap_rows.begin; u < tap_rows.end; ++u) {
    const Range outputs = outputs_of_tap(down, u);
    for (int64_t v = columns.begin; v < columns.end; ++v) {
      const Range range = outputs_of_tap(along, v);
      Vec<A> total{};
      for (int64_t i = std::max(out_rows.begin, outputs.begin); i < std::min(out_rows.end, outputs.end); ++i) {
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

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET::flat_lanes

#endif  // KERAS_DYNFILTER_CPU_KERNELS_FLAT_LANES_H_
