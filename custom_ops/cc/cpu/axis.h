// SPDX-License-Identifier: Apache-2.0
// Which taps of a window meet the image, along one axis.
#ifndef KERAS_DYNFILTER_CPU_AXIS_H_
#define KERAS_DYNFILTER_CPU_AXIS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "cpu/level.h"
#include "filter.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

struct Axis {
  int64_t size, out_size, kernel, stride, dilation, pad;
};

inline Axis vertical(const Problem& p) {
  return {p.height, p.out_height, p.kernel_h, p.stride_h, p.dilation_h, p.pad_h};
}
inline Axis horizontal(const Problem& p) {
  return {p.width, p.out_width, p.kernel_w, p.stride_w, p.dilation_w, p.pad_w};
}

// `count` taps, from `tap` on in steps of `tap_step`, which lie at `source` and on in steps of `source_step`.
struct Taps {
  int64_t tap, tap_step, source, source_step, count;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

// The input positions under the window of output `out`.
inline Taps taps_of_output(const Axis& a, int64_t out) {
  const int64_t origin = out * a.stride - a.pad;
  int64_t begin = 0, end = a.kernel;
  if (a.dilation == 1) {
    begin = std::max<int64_t>(begin, -origin);
    end = std::min(end, a.size - origin);
  } else {
    begin = std::max(begin, ceil_div(-origin, a.dilation));
    end = std::min(end, ceil_div(a.size - origin, a.dilation));
  }
  return {begin, 1, origin + begin * a.dilation, a.dilation, std::max<int64_t>(end - begin, 0)};
}

// The outputs whose windows contain input `in`, with the tap under which it lies.
inline Taps taps_of_input(const Axis& a, int64_t in) {
  const int64_t origin = in + a.pad;  // output * stride = origin - tap * dilation
  if (a.stride == 1 && a.dilation == 1) {
    const int64_t begin = std::max<int64_t>(0, origin - (a.out_size - 1));
    const int64_t end = std::min(a.kernel, origin + 1);
    return {begin, 1, origin - begin, -1, std::max<int64_t>(end - begin, 0)};
  }
  const int64_t divisor = std::gcd(a.stride, a.dilation);
  const int64_t tap_step = a.stride / divisor;
  const int64_t last = std::min(tap_step, a.kernel);
  int64_t tap = 0;  // the first tap that falls on the stride
  while (tap < last && (origin - tap * a.dilation) % a.stride != 0) ++tap;
  if (tap == last || a.out_size == 0) return {0, 1, 0, 1, 0};
  const int64_t source_step = a.dilation / divisor;
  int64_t source = (origin - tap * a.dilation) / a.stride;
  if (source >= a.out_size) {
    const int64_t skip = (source - a.out_size) / source_step + 1;
    tap += skip * tap_step;
    source -= skip * source_step;
  }
  if (source < 0 || tap >= a.kernel) return {0, 1, 0, 1, 0};
  const int64_t count = std::min(source / source_step, (a.kernel - 1 - tap) / tap_step) + 1;
  return {tap, tap_step, source, -source_step, count};
}

// The outputs [begin, end) whose window has `tap` inside the image.
struct Range {
  int64_t begin, end;
};

inline Range outputs_of_tap(const Axis& a, int64_t tap) {
  const int64_t offset = tap * a.dilation - a.pad;
  const int64_t begin = std::clamp<int64_t>(ceil_div(-offset, a.stride), 0, a.out_size);
  const int64_t end = std::clamp<int64_t>(ceil_div(a.size - offset, a.stride), begin, a.out_size);
  return {begin, end};
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL

#endif  // KERAS_DYNFILTER_CPU_AXIS_H_
