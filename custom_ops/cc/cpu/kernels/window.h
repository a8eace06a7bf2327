// SPDX-License-Identifier: Apache-2.0
// Finds the taps of a window that are inside the image, along one axis.
#ifndef KERAS_DYNFILTER_CPU_KERNELS_WINDOW_H_
#define KERAS_DYNFILTER_CPU_KERNELS_WINDOW_H_

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "cpu/isa_target.h"
#include "family.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

// `count` taps. Their numbers start at `tap` and have the step `tap_step`. Their positions in the source start at
// `source` and have the step `source_step`.
struct Taps {
  int64_t tap, tap_step, source, source_step, count;
};

// Returns the taps of output `out` that are inside the image, with their input positions.
inline Taps taps_of_output(const Axis& a, int64_t out) {
  const int64_t origin = out * a.stride - a.pad;
  int64_t begin = 0, end = a.window;
  if (a.dilation == 1) {
    begin = std::max<int64_t>(begin, -origin);
    end = std::min(end, a.size - origin);
  } else {
    begin = std::max(begin, ceil_div(-origin, a.dilation));
    end = std::min(end, ceil_div(a.size - origin, a.dilation));
  }
  return {begin, 1, origin + begin * a.dilation, a.dilation, std::max<int64_t>(end - begin, 0)};
}

// Returns the taps that read input `in`, with the positions of the outputs to which they belong.
inline Taps taps_of_input(const Axis& a, int64_t in) {
  const int64_t origin = in + a.pad;  // output * stride = origin - tap * dilation
  if (a.stride == 1 && a.dilation == 1) {
    const int64_t begin = std::max<int64_t>(0, origin - (a.out_size - 1));
    const int64_t end = std::min(a.window, origin + 1);
    return {begin, 1, origin - begin, -1, std::max<int64_t>(end - begin, 0)};
  }
  const int64_t divisor = std::gcd(a.stride, a.dilation);
  const int64_t tap_step = a.stride / divisor;
  const int64_t last = std::min(tap_step, a.window);
  int64_t tap = 0;  // the first tap at which an output exists
  while (tap < last && (origin - tap * a.dilation) % a.stride != 0) ++tap;
  if (tap == last || a.out_size == 0) return {0, 1, 0, 1, 0};
  const int64_t source_step = a.dilation / divisor;
  int64_t source = (origin - tap * a.dilation) / a.stride;
  if (source >= a.out_size) {
    const int64_t skip = (source - a.out_size) / source_step + 1;
    tap += skip * tap_step;
    source -= skip * source_step;
  }
  if (source < 0 || tap >= a.window) return {0, 1, 0, 1, 0};
  const int64_t count = std::min(source / source_step, (a.window - 1 - tap) / tap_step) + 1;
  return {tap, tap_step, source, -source_step, count};
}

// Returns the outputs whose tap number `tap` is inside the image.
inline Range outputs_of_tap(const Axis& a, int64_t tap) {
  const int64_t offset = tap * a.dilation - a.pad;
  const int64_t begin = std::clamp<int64_t>(ceil_div(-offset, a.stride), 0, a.out_size);
  const int64_t end = std::clamp<int64_t>(ceil_div(a.size - offset, a.stride), begin, a.out_size);
  return {begin, end};
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_KERNELS_WINDOW_H_
