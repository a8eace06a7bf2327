// SPDX-License-Identifier: Apache-2.0
// Makes shapes of XLA, for the lowerings of the ops.
#ifndef KERAS_DYNFILTER_XLA_SHAPES_H_
#define KERAS_DYNFILTER_XLA_SHAPES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace keras_dynfilter {

inline xla::Shape row_major(xla::PrimitiveType type, absl::Span<const int64_t> sizes) {
  return xla::ShapeUtil::MakeShapeWithDescendingLayout(type, sizes);
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_SHAPES_H_
