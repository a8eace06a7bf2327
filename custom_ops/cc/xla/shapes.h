// SPDX-License-Identifier: Apache-2.0
// Shapes of XLA, for the lowerings of the ops.
#ifndef KERAS_DYNFILTER_XLA_SHAPES_H_
#define KERAS_DYNFILTER_XLA_SHAPES_H_

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace keras_dynfilter {

// Refuses results that are too large: XLA aborts the process if a product of sizes overflows.
inline absl::Status check_size(absl::Span<const int64_t> result) {
  int64_t elements = 1;
  for (const int64_t size : result) {
    if (size > 0 && elements > (int64_t{1} << 48) / size) {
      return absl::InvalidArgumentError(absl::StrCat("The result is too large: [", absl::StrJoin(result, ","), "]"));
    }
    elements *= std::max<int64_t>(size, 1);
  }
  return absl::OkStatus();
}

inline xla::Shape row_major(xla::PrimitiveType type, absl::Span<const int64_t> sizes) {
  return xla::ShapeUtil::MakeShapeWithDescendingLayout(type, sizes);
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_SHAPES_H_
