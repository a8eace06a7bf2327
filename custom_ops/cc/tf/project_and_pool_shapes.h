// SPDX-License-Identifier: Apache-2.0
// Checks the shapes of the operands of ProjectAndPool, for the TensorFlow kernel and the XLA lowering.
#ifndef KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_
#define KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace keras_dynfilter {

inline absl::Status check_projection(absl::Span<const int64_t> inputs, absl::Span<const int64_t> kernel,
                                     absl::Span<const int64_t> bias) {
  const char* expected = nullptr;
  if (inputs.size() != 4 || kernel.size() != 2 || bias.size() != 1) {
    expected = "Expected inputs [batch, height, width, channels], kernel [channels, outputs], bias [outputs]";
  } else if (kernel[0] != inputs[3] || kernel[1] != bias[0]) {
    expected = "Expected kernel to have shape [channels, outputs], with the channels of inputs and the outputs of bias";
  } else {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(expected, ". Received: inputs [", absl::StrJoin(inputs, ","),
                                                 "], kernel [", absl::StrJoin(kernel, ","), "], bias [",
                                                 absl::StrJoin(bias, ","), "]"));
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_PROJECT_AND_POOL_SHAPES_H_
