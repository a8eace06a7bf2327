// SPDX-License-Identifier: Apache-2.0
// Converts the shapes that TensorFlow infers when a function is traced from and to shapes with unknown sizes.
#ifndef KERAS_DYNFILTER_TF_INFERRED_SHAPES_H_
#define KERAS_DYNFILTER_TF_INFERRED_SHAPES_H_

#include <cstdint>
#include <vector>

#include "arguments.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace keras_dynfilter {

// Returns the sizes of a shape. A shape of unknown rank is taken for `rank` unknown sizes: the kernel checks it.
inline Shape known_sizes(tensorflow::shape_inference::InferenceContext* c,
                         tensorflow::shape_inference::ShapeHandle shape, int rank) {
  if (!c->RankKnown(shape)) return Shape(rank, kUnknown);
  Shape sizes;
  for (int axis = 0; axis < c->Rank(shape); ++axis) sizes.push_back(c->Value(c->Dim(shape, axis)));
  return sizes;
}

inline tensorflow::shape_inference::ShapeHandle make_shape(tensorflow::shape_inference::InferenceContext* c,
                                                           const Shape& sizes) {
  std::vector<tensorflow::shape_inference::DimensionHandle> dims;
  for (const int64_t size : sizes) dims.push_back(size == kUnknown ? c->UnknownDim() : c->MakeDim(size));
  return c->MakeShape(dims);
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_INFERRED_SHAPES_H_
