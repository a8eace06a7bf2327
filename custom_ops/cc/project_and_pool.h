// SPDX-License-Identifier: Apache-2.0
// Projects every pixel of an image linearly and averages the pixels, in one pass over the image. The generators of
// dynamic filters need both results.
//
//   projected[n,p,k] = bias[k] + sum_c inputs[n,p,c] * kernel[c,k]          means[n,c] = sum_p inputs[n,p,c] / pixels
#ifndef KERAS_DYNFILTER_PROJECT_AND_POOL_H_
#define KERAS_DYNFILTER_PROJECT_AND_POOL_H_

#include "family.h"

namespace keras_dynfilter {

// Sizes in elements, none negative. `pixels` is the number of pixels of one image.
struct Projection {
  DType dtype;
  int64_t batch, pixels, channels, outputs;
};

// Whether both results are empty. The images can still have any number of pixels or channels.
inline bool is_empty(const Projection& p) {
  return p.batch == 0 || ((p.pixels == 0 || p.outputs == 0) && p.channels == 0);
}

struct ProjectionBuffers {
  const void* inputs = nullptr;  // [batch, pixels, channels]
  const void* kernel = nullptr;  // [channels, outputs]
  const void* bias = nullptr;    // [outputs]
  void* projected = nullptr;     // [batch, pixels, outputs]
  void* means = nullptr;         // [batch, channels]
  void* workspace = nullptr;     // workspace_bytes(projection) bytes, aligned to 64
};

namespace cpu {

size_t workspace_bytes(const Projection& projection);

// Computes both results, with the same bits for every ParallelFor. The means of an image without pixels are NaN.
void run(const Projection& projection, const ProjectionBuffers& buffers, const ParallelFor& parallel_for);

}  // namespace cpu

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_PROJECT_AND_POOL_H_
