// SPDX-License-Identifier: Apache-2.0
// Wraps the checks of arguments.h in TensorFlow's types, for the kernels and the XLA lowering.
#ifndef KERAS_DYNFILTER_TF_PROBLEM_H_
#define KERAS_DYNFILTER_TF_PROBLEM_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "arguments.h"
#include "tensorflow/core/framework/types.pb.h"

namespace keras_dynfilter {

inline absl::Status to_status(const Error& error) {
  return error.empty() ? absl::OkStatus() : absl::InvalidArgumentError(error);
}

inline DType to_dtype(tensorflow::DataType type) {
  switch (type) {
    case tensorflow::DT_DOUBLE: return DType::kFloat64;
    case tensorflow::DT_HALF: return DType::kFloat16;
    case tensorflow::DT_BFLOAT16: return DType::kBFloat16;
    default: return DType::kFloat32;
  }
}

// Reads and checks the attributes. Context is OpKernelConstruction or InferenceContext.
template <typename Context>
absl::Status read_attributes(Context* context, const FamilyOp& op, Attributes* a) {
  for (auto [name, field] : a->numbers(op)) {
    if (absl::Status s = context->GetAttr(name, field); !s.ok()) return s;
  }
  std::string text;
  bool valid = false;
  if (absl::Status s = context->GetAttr("padding", &text); !s.ok()) return s;
  if (Error error = read_choice("padding", text, "same", "valid", &valid); !error.empty()) return to_status(error);
  a->same = !valid;
  if (op.has_combine()) {
    if (absl::Status s = context->GetAttr("combine", &text); !s.ok()) return s;
    if (Error error = read_choice("combine", text, "mul", "add", &a->add); !error.empty()) return to_status(error);
  }
  return to_status(a->check());
}

inline absl::Status make_problem(const FamilyOp& op, const Attributes& a, DType dtype, const std::vector<Shape>& shapes,
                                 const Shape& input_size, Problem* problem, Shape* result) {
  return to_status(fill_problem(op, a, dtype, shapes, input_size, problem, result));
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_PROBLEM_H_
