// SPDX-License-Identifier: Apache-2.0
// Shapes of XLA, for the lowerings of the ops.
#ifndef KERAS_DYNFILTER_XLA_SHAPES_H_
#define KERAS_DYNFILTER_XLA_SHAPES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "family.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace keras_dynfilter {

// Refuses results that are too large: XLA aborts the process if a product of sizes overflows.
inline absl::Status check_size(absl::Span<const int64_t> result) {
  if (is_bounded(result)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("The result is too large: [", absl::StrJoin(result, ","), "]"));
}

inline xla::Shape row_major(xla::PrimitiveType type, absl::Span<const int64_t> sizes) {
  return xla::ShapeUtil::MakeShapeWithDescendingLayout(type, sizes);
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_SHAPES_H_
