// SPDX-License-Identifier: Apache-2.0
// Filters, each normalised over its own taps, and the derivative of that.
//
//   outputs[o,t,i] = gain * (filters[o,t,i] - mean[o,i]) / (std[o,i] + epsilon)
//
// `std` is the unbiased one, with `taps - 1`. Where its square is below the normal numbers, outputs and derivatives are
// 0.
#ifndef KERAS_DYNFILTER_NORMALIZE_H_
#define KERAS_DYNFILTER_NORMALIZE_H_

#include "filter.h"

namespace keras_dynfilter {

// Of a filter: threads keep a vector of filters apart, for which memory might be missing otherwise.
constexpr int64_t kMostTaps = 1 << 16;

// Sizes in elements, none negative, from two to kMostTaps taps. `dtype` is float32 or float64.
struct Normalization {
  DType dtype;
  int64_t outer, taps, inner;
  double gain, epsilon;
};

struct NormalizationBuffers {
  const void* filters = nullptr;  // [outer, taps, inner]
  const void* grad = nullptr;     // the same shape; null: the result is the outputs, and else the gradient by filters
  void* result = nullptr;         // the same shape
};

namespace cpu {

void run(const Normalization& normalization, const NormalizationBuffers& buffers, const ParallelFor& parallel_for);

}  // namespace cpu

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_NORMALIZE_H_
