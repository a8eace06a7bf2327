// SPDX-License-Identifier: Apache-2.0
// Defines the TensorFlow ops of the family: signatures, and shapes as far as they are known when a function is traced.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_def_builder.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"
#include "tf/guarded.h"
#include "tf/inferred_shapes.h"
#include "tf/problem.h"

namespace keras_dynfilter {
namespace {

using tensorflow::shape_inference::InferenceContext;

absl::Status infer(InferenceContext* c, const FamilyOp& op) {
  Attributes a;
  TF_RETURN_IF_ERROR(read_attributes(c, op, &a));
  Shape input_size = {kUnknown, kUnknown};
  bool size_is_known = true;
  int next = 0;
  if (op.has_input_size()) {
    TF_RETURN_IF_ERROR(to_status(check_input_size_shape(known_sizes(c, c->input(next), 1))));
    // TensorFlow first infers shapes without the value of input_size, and repeats this if the value is a constant.
    const tensorflow::Tensor* constant = c->input_tensor(next++);
    size_is_known = constant != nullptr && constant->NumElements() == 2;
    if (size_is_known) {
      const auto values = constant->flat<int64_t>();
      input_size = {values(0), values(1)};
      TF_RETURN_IF_ERROR(to_status(check_input_size(input_size)));
    }
  }
  std::vector<Shape> shapes;
  for (; next < c->num_inputs(); ++next) shapes.push_back(known_sizes(c, c->input(next), 4));
  Sizes sizes;
  Shape result;
  const Error error = check_shapes(op, a, shapes, input_size, &sizes, &result);
  if (!error.empty() && !size_is_known) {  // leave the error to the repetition or to the kernel, which know more
    c->set_output(0, c->UnknownShapeOfRank(4));
    return absl::OkStatus();
  }
  TF_RETURN_IF_ERROR(to_status(error));
  c->set_output(0, make_shape(c, result));
  return absl::OkStatus();
}

tensorflow::OpDefBuilder definition(const FamilyOp& op) {
  tensorflow::OpDefBuilder builder(op.name);
  for (const std::string& operand : op.operands()) {
    builder.Input(operand + (operand == "input_size" ? ": int64" : ": T"));
  }
  builder.Output("outputs: T").Attr("T: {half, bfloat16, float, double}");
  // The values of the attributes have no constraints here: `read_attributes` checks them, with errors of one form.
  for (const char* side : {"h", "w"}) builder.Attr(absl::StrCat("kernel_", side, ": int"));
  for (const char* name : {"stride", "dilation"}) {
    for (const char* side : {"h", "w"}) builder.Attr(absl::StrCat(name, "_", side, ": int = 1"));
  }
  builder.Attr("padding: string = 'same'");
  if (op.has_heads()) builder.Attr("heads: int = 1");
  if (op.has_combine()) builder.Attr("combine: string = 'mul'");
  builder.SetShapeFn([&op](InferenceContext* c) { return guarded([&] { return infer(c, op); }); });
  builder.Doc("See keras_dynfilter/ops for the formula and the shapes.");
  return builder;
}

[[maybe_unused]] const bool kRegistered = [] {
  for (const FamilyOp& op : kFamilyOps) {
    tensorflow::OpRegistry::Global()->Register(
        [&op](tensorflow::OpRegistrationData* data) { return definition(op).Finalize(data); });
  }
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter
