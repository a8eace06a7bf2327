// SPDX-License-Identifier: Apache-2.0
// Checks the shapes of the operands of ProjectAndPool, for the shape function, the TensorFlow kernel and the XLA
// lowering.
#ifndef KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_
#define KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_

#include "absl/status/status.h"
#include "arguments.h"
#include "tf/problem.h"

namespace keras_dynfilter {

struct ProjectionShapes {
  Shape inputs, kernel, bias;  // of the operands
  Shape projected, means;      // of the results
};

// Checks the shapes of the operands, as far as they are known, and computes the shapes of the results.
inline absl::Status check_projection(ProjectionShapes* s) {
  Error error = check_rank("inputs", s->inputs, 4);
  if (!error.empty()) return to_status(error);
  int64_t channels = s->inputs[3], outputs = kUnknown;
  error = merge_shape("kernel", s->kernel, "channels,outputs", {&channels, &outputs});
  if (error.empty()) error = merge_shape("bias", s->bias, "outputs", {&outputs});
  s->projected = {s->inputs[0], s->inputs[1], s->inputs[2], outputs};
  s->means = {s->inputs[0], channels};
  if (error.empty()) error = check_bounded("`inputs`", s->inputs);
  if (error.empty()) error = check_bounded("`kernel`", s->kernel);
  if (error.empty()) error = check_bounded("the projection of `inputs` by `kernel`", s->projected);
  return to_status(error);
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_
