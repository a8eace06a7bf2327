// SPDX-License-Identifier: Apache-2.0
// What the generators of filters need of an image, in one reading of it: a linear map of every pixel, and the means.
//
//   projected[n,p,k] = bias[k] + sum_c inputs[n,p,c] * kernel[c,k]          means[n,c] = sum_p inputs[n,p,c] / pixels
#ifndef KERAS_DYNFILTER_PROJECT_H_
#define KERAS_DYNFILTER_PROJECT_H_

#include "filter.h"

namespace keras_dynfilter {

// Sizes in elements, none negative. `pixels` are those of one image.
struct Projection {
  DType dtype;
  int64_t batch, pixels, channels, outputs;
};

struct ProjectionBuffers {
  const void* inputs = nullptr;  // [batch, pixels, channels]
  const void* kernel = nullptr;  // [channels, outputs]
  const void* bias = nullptr;    // [outputs]
  void* projected = nullptr;     // [batch, pixels, outputs]
  void* means = nullptr;         // [batch, channels]
  void* workspace = nullptr;     // workspace_bytes(projection), aligned to 64 bytes
};

namespace cpu {

size_t workspace_bytes(const Projection& projection);

// The same bits for any ParallelFor. The means of no pixels are NaN.
void run(const Projection& projection, const ProjectionBuffers& buffers, const ParallelFor& parallel_for);

}  // namespace cpu

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_PROJECT_H_
