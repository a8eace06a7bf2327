// SPDX-License-Identifier: Apache-2.0
// The ops: their signatures and what is known of their shapes at trace time.
#include <optional>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/problem.h"

namespace keras_dynfilter {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Merges `value` into `dim`, which may be unset.
absl::Status merge(InferenceContext* c, DimensionHandle value, DimensionHandle* dim) {
  return c->Merge(*dim, value, dim);
}

absl::Status merge_output(InferenceContext* c, DimensionHandle size, int64_t (Attributes::*formula)(int64_t) const,
                          const Attributes& a, DimensionHandle* dim) {
  if (!c->ValueKnown(size) || c->Value(size) > kMostPixels) return absl::OkStatus();  // the kernel refuses the latter
  return merge(c, c->MakeDim((a.*formula)(c->Value(size))), dim);
}

absl::Status infer(InferenceContext* c, const Spec& spec) {
  Attributes a;
  TF_RETURN_IF_ERROR(read_attributes(c, spec, &a));
  Problem p{};
  p.weight = a.weight(spec);
  p.member = spec.member;
  const auto unknown = [&] { return c->UnknownDim(); };
  DimensionHandle batch = unknown(), channels = unknown(), height = unknown(), width = unknown();
  DimensionHandle out_height = unknown(), out_width = unknown();

  int next = 0;
  ShapeHandle s;
  if (spec.member == Member::kInputs) {
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
  switch (spec.member) {
    case Member::kOutput: c->set_output(0, c->MakeShape({batch, out_height, out_width, channels})); break;
    case Member::kInputs: c->set_output(0, c->MakeShape({batch, height, width, channels})); break;
    case Member::kSpatial: c->set_output(0, c->MakeShape({batch, out_height, out_width, a.heads_by_taps()})); break;
    case Member::kChannel: c->set_output(0, c->MakeShape({batch, a.kernel_h, a.kernel_w, channels})); break;
  }
  return absl::OkStatus();
}

#define WINDOW                               \
  Attr("T: {half, bfloat16, float, double}") \
      .Attr("kernel_h: int >= 1")            \
      .Attr("kernel_w: int >= 1")            \
      .Attr("stride_h: int >= 1 = 1")        \
      .Attr("stride_w: int >= 1 = 1")        \
      .Attr("dilation_h: int >= 1 = 1")      \
      .Attr("dilation_w: int >= 1 = 1")      \
      .Attr("padding: {'same', 'valid'} = 'same'")
#define HEADS Attr("heads: int >= 1 = 1")
#define COMBINE Attr("combine: {'mul', 'add'} = 'mul'")
#define SHAPE(name) SetShapeFn([](InferenceContext* c) { return infer(c, *find_spec("KerasDynfilter>" name)); })
#define DOC "See keras_dynfilter/ops for the formula and the shapes."

REGISTER_OP("KerasDynfilter>LocalFilter2D")
    .Input("inputs: T")
    .Input("filters: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("LocalFilter2D")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>LocalFilter2DGradInputs")
    .Input("input_size: int64")
    .Input("filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("LocalFilter2DGradInputs")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>LocalFilter2DGradFilters")
    .Input("inputs: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("LocalFilter2DGradFilters")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>SoftmaxLocalFilter2D")
    .Input("inputs: T")
    .Input("filters: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("SoftmaxLocalFilter2D")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>SoftmaxLocalFilter2DGradInputs")
    .Input("input_size: int64")
    .Input("filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("SoftmaxLocalFilter2DGradInputs")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>SoftmaxLocalFilter2DGradFilters")
    .Input("inputs: T")
    .Input("filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("SoftmaxLocalFilter2DGradFilters")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DynamicDepthwiseConv2D")
    .Input("inputs: T")
    .Input("filters: T")
    .Output("outputs: T")
    .WINDOW.SHAPE("DynamicDepthwiseConv2D")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DynamicDepthwiseConv2DGradInputs")
    .Input("input_size: int64")
    .Input("filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.SHAPE("DynamicDepthwiseConv2DGradInputs")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DynamicDepthwiseConv2DGradFilters")
    .Input("inputs: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.SHAPE("DynamicDepthwiseConv2DGradFilters")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DDF2D")
    .Input("inputs: T")
    .Input("channel_filters: T")
    .Input("spatial_filters: T")
    .Output("outputs: T")
    .WINDOW.HEADS.COMBINE.SHAPE("DDF2D")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DDF2DGradInputs")
    .Input("input_size: int64")
    .Input("channel_filters: T")
    .Input("spatial_filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.COMBINE.SHAPE("DDF2DGradInputs")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DDF2DGradChannelFilters")
    .Input("inputs: T")
    .Input("spatial_filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("DDF2DGradChannelFilters")
    .Doc(DOC);
REGISTER_OP("KerasDynfilter>DDF2DGradSpatialFilters")
    .Input("inputs: T")
    .Input("channel_filters: T")
    .Input("grad: T")
    .Output("outputs: T")
    .WINDOW.HEADS.SHAPE("DDF2DGradSpatialFilters")
    .Doc(DOC);

}  // namespace
}  // namespace keras_dynfilter
