// SPDX-License-Identifier: Apache-2.0
// Defines the TensorFlow ops of the family: signatures, and shapes as far as they are known when a function is traced.
#include <string>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_def_builder.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/guarded.h"
#include "tf/problem.h"

namespace keras_dynfilter {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Merges `value` into `dim`. Either of them may be unknown.
absl::Status merge(InferenceContext* c, DimensionHandle value, DimensionHandle* dim) {
  return c->Merge(*dim, value, dim);
}

absl::Status merge_output(InferenceContext* c, DimensionHandle size, int64_t (Attributes::*formula)(int64_t) const,
                          const Attributes& a, DimensionHandle* dim) {
  if (!c->ValueKnown(size) || c->Value(size) > kMaxPixels) return absl::OkStatus();  // the kernel refuses larger sizes
  return merge(c, c->MakeDim((a.*formula)(c->Value(size))), dim);
}

absl::Status infer(InferenceContext* c, const FamilyOp& op) {
  Attributes a;
  TF_RETURN_IF_ERROR(read_attributes(c, op, &a));
  Problem p{};
  p.kind = a.kind(op);
  p.derivative = op.derivative;
  const auto unknown = [&] { return c->UnknownDim(); };
  DimensionHandle batch = unknown(), channels = unknown(), height = unknown(), width = unknown();
  DimensionHandle out_height = unknown(), out_width = unknown();

  int next = 0;
  ShapeHandle s;
  if (op.has_input_size()) {
    ShapeHandle size;
    TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &s));
    DimensionHandle two;
    TF_RETURN_IF_ERROR(c->WithValue(c->Dim(s, 0), 2, &two));
    TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(0, &size));
    height = c->Dim(size, 0), width = c->Dim(size, 1);
    ++next;
  }
  if (reads_inputs(p)) {
    TF_RETURN_IF_ERROR(c->WithRank(c->input(next++), 4, &s));
    batch = c->Dim(s, 0), height = c->Dim(s, 1), width = c->Dim(s, 2), channels = c->Dim(s, 3);
  }
  TF_RETURN_IF_ERROR(merge_output(c, height, &Attributes::out_height, a, &out_height));
  TF_RETURN_IF_ERROR(merge_output(c, width, &Attributes::out_width, a, &out_width));
  if (reads_channel(p)) {
    DimensionHandle ignored;
    TF_RETURN_IF_ERROR(c->WithRank(c->input(next++), 4, &s));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 0), &batch));
    TF_RETURN_IF_ERROR(c->WithValue(c->Dim(s, 1), a.kernel_h, &ignored));
    TF_RETURN_IF_ERROR(c->WithValue(c->Dim(s, 2), a.kernel_w, &ignored));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 3), &channels));
  }
  if (reads_spatial(p)) {
    DimensionHandle ignored;
    TF_RETURN_IF_ERROR(c->WithRank(c->input(next++), 4, &s));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 0), &batch));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 1), &out_height));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 2), &out_width));
    TF_RETURN_IF_ERROR(c->WithValue(c->Dim(s, 3), a.heads_by_taps(), &ignored));
  }
  if (reads_grad(p)) {
    TF_RETURN_IF_ERROR(c->WithRank(c->input(next++), 4, &s));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 0), &batch));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 1), &out_height));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 2), &out_width));
    TF_RETURN_IF_ERROR(merge(c, c->Dim(s, 3), &channels));
  }
  if (c->ValueKnown(channels) && c->Value(channels) % a.heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("Expected heads to divide the channels. Received: heads=", a.heads,
                                                   ", channels=", c->Value(channels)));
  }
  switch (op.derivative) {
    case Derivative::kOutput: c->set_output(0, c->MakeShape({batch, out_height, out_width, channels})); break;
    case Derivative::kInputs: c->set_output(0, c->MakeShape({batch, height, width, channels})); break;
    case Derivative::kSpatial: c->set_output(0, c->MakeShape({batch, out_height, out_width, a.heads_by_taps()})); break;
    case Derivative::kChannel: c->set_output(0, c->MakeShape({batch, a.kernel_h, a.kernel_w, channels})); break;
  }
  return absl::OkStatus();
}

tensorflow::OpDefBuilder definition(const FamilyOp& op) {
  tensorflow::OpDefBuilder builder(op.name);
  for (const std::string& operand : op.operands()) {
    builder.Input(operand + (operand == "input_size" ? ": int64" : ": T"));
  }
  builder.Output("outputs: T").Attr("T: {half, bfloat16, float, double}");
  for (const char* side : {"h", "w"}) builder.Attr(absl::StrCat("kernel_", side, ": int >= 1"));
  for (const char* name : {"stride", "dilation"}) {
    for (const char* side : {"h", "w"}) builder.Attr(absl::StrCat(name, "_", side, ": int >= 1 = 1"));
  }
  builder.Attr("padding: {'same', 'valid'} = 'same'");
  if (op.has_heads()) builder.Attr("heads: int >= 1 = 1");
  if (op.has_combine()) builder.Attr("combine: {'mul', 'add'} = 'mul'");
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
