// SPDX-License-Identifier: Apache-2.0
// Finds the taps of a window that are inside the image, along one axis. No function searches taps one by one, so the
// time does not depend on the size of the window.
#ifndef KERAS_DYNFILTER_WINDOW_H_
#define KERAS_DYNFILTER_WINDOW_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "family.h"
#include "parallel.h"

namespace keras_dynfilter {

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

// The steps between the taps that read one input, and between their outputs. They depend on stride and dilation only.
struct TapSteps {
  int64_t divisor;                // the greatest common divisor of stride and dilation
  int64_t tap_step, source_step;  // stride / divisor, dilation / divisor
  int64_t inverse;                // inverse * source_step = 1 modulo tap_step
};

inline TapSteps tap_steps(const Axis& a) {
  // Euclid's algorithm.
  int64_t divisor = a.stride, rest = a.dilation % a.stride, inverse = 0, next_inverse = 1;
  while (rest != 0) {
    const int64_t quotient = divisor / rest;
    divisor = std::exchange(rest, divisor - quotient * rest);
    inverse = std::exchange(next_inverse, inverse - quotient * next_inverse);
  }
  const int64_t tap_step = a.stride / divisor;
  return {divisor, tap_step, a.dilation / divisor, inverse < 0 ? inverse + tap_step : inverse};
}

// Returns the taps that read input `in`, with the positions of the outputs to which they belong. `steps` are the steps
// of the axis.
KDF_HOST_DEVICE inline Taps taps_of_input(const Axis& a, const TapSteps& steps, int64_t in) {
  constexpr Taps kNone = {0, 1, 0, 1, 0};
  const int64_t origin = in + a.pad;  // output * stride = origin - tap * dilation
  if (a.stride == 1 && a.dilation == 1) {
    const int64_t begin = origin < a.out_size ? 0 : origin - (a.out_size - 1);
    const int64_t end = origin < a.window ? origin + 1 : a.window;
    return {begin, 1, origin - begin, -1, end > begin ? end - begin : 0};
  }
  if (a.out_size == 0 || origin % steps.divisor != 0) return kNone;
  // The first tap at which origin - tap * dilation is a multiple of the stride. The factors are below 2^31.
  int64_t tap = origin / steps.divisor % steps.tap_step * steps.inverse % steps.tap_step;
  if (tap >= a.window) return kNone;
  int64_t source = (origin - tap * a.dilation) / a.stride;
  if (source >= a.out_size) {
    const int64_t skip = (source - a.out_size) / steps.source_step + 1;
    tap += skip * steps.tap_step;
    source -= skip * steps.source_step;
  }
  if (source < 0 || tap >= a.window) return kNone;
  const int64_t sources = source / steps.source_step, taps = (a.window - 1 - tap) / steps.tap_step;
  return {tap, steps.tap_step, source, -steps.source_step, (sources < taps ? sources : taps) + 1};
}

// Returns the outputs whose tap number `tap` is inside the image.
inline Range outputs_of_tap(const Axis& a, int64_t tap) {
  const int64_t offset = tap * a.dilation - a.pad;
  const int64_t begin = std::clamp<int64_t>(ceil_div(-offset, a.stride), 0, a.out_size);
  const int64_t end = std::clamp<int64_t>(ceil_div(a.size - offset, a.stride), begin, a.out_size);
  return {begin, end};
}

// Returns the smallest range that contains all taps at which one of `outputs` reads one of `inputs`.
inline Range taps_between(const Axis& a, const Range& outputs, const Range& inputs) {
  if (outputs.begin >= outputs.end || inputs.begin >= inputs.end) return {0, 0};
  const int64_t begin = ceil_div(inputs.begin + a.pad - (outputs.end - 1) * a.stride, a.dilation);
  const int64_t end = ceil_div(inputs.end + a.pad - outputs.begin * a.stride, a.dilation);
  return {std::clamp<int64_t>(begin, 0, a.window), std::clamp<int64_t>(end, 0, a.window)};
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_WINDOW_H_
