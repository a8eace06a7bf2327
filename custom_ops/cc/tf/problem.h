// SPDX-License-Identifier: Apache-2.0
// From an op's attributes and shapes to a checked Problem. TensorFlow's kernels and the XLA lowering share it: raw ops
// can be reached from any graph, so what the Python functions check does not count here.
#ifndef KERAS_DYNFILTER_TF_PROBLEM_H_
#define KERAS_DYNFILTER_TF_PROBLEM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "filter.h"

namespace keras_dynfilter {

// An op of the family. Its inputs are, in this order and as far as its member reads them: input_size (the height and
// width of the images, for gradients by the inputs), inputs, channel filters, spatial filters, grad.
struct Spec {
  const char* name;
  Weight weight;
  Member member;
  bool combines;  // has an attribute `combine` that chooses between kMul and kAdd
};

inline constexpr Spec kSpecs[] = {
    {"KerasDynfilter>LocalFilter2D", Weight::kSpatial, Member::kOutput, false},
    {"KerasDynfilter>LocalFilter2DGradInputs", Weight::kSpatial, Member::kInputs, false},
    {"KerasDynfilter>LocalFilter2DGradFilters", Weight::kSpatial, Member::kSpatial, false},
    {"KerasDynfilter>SoftmaxLocalFilter2D", Weight::kSoftmax, Member::kOutput, false},
    {"KerasDynfilter>SoftmaxLocalFilter2DGradInputs", Weight::kSoftmax, Member::kInputs, false},
    {"KerasDynfilter>SoftmaxLocalFilter2DGradFilters", Weight::kSoftmax, Member::kSpatial, false},
    {"KerasDynfilter>DynamicDepthwiseConv2D", Weight::kChannel, Member::kOutput, false},
    {"KerasDynfilter>DynamicDepthwiseConv2DGradInputs", Weight::kChannel, Member::kInputs, false},
    {"KerasDynfilter>DynamicDepthwiseConv2DGradFilters", Weight::kChannel, Member::kChannel, false},
    {"KerasDynfilter>DDF2D", Weight::kMul, Member::kOutput, true},
    {"KerasDynfilter>DDF2DGradInputs", Weight::kMul, Member::kInputs, true},
    {"KerasDynfilter>DDF2DGradChannelFilters", Weight::kMul, Member::kChannel, false},
    {"KerasDynfilter>DDF2DGradSpatialFilters", Weight::kMul, Member::kSpatial, false},
};

inline const Spec* find_spec(const std::string& name) {
  for (const Spec& spec : kSpecs) {
    if (name == spec.name) return &spec;
  }
  return nullptr;
}

// Of an image, along one axis: keeps the arithmetic on sizes far from overflow.
inline constexpr int64_t kMostPixels = int64_t{1} << 40;

struct Attributes {
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, heads = 1;
  bool same = true, add = false;

  // Context: OpKernelConstruction or InferenceContext.
  template <typename Context>
  static absl::Status read(Context* context, const Spec& spec, Attributes* a) {
    std::string text;
    for (auto [name, field] : {std::pair{"kernel_h", &a->kernel_h}, std::pair{"kernel_w", &a->kernel_w},
                               std::pair{"stride_h", &a->stride_h}, std::pair{"stride_w", &a->stride_w},
                               std::pair{"dilation_h", &a->dilation_h}, std::pair{"dilation_w", &a->dilation_w}}) {
      if (absl::Status s = context->GetAttr(name, field); !s.ok()) return s;
    }
    if (absl::Status s = context->GetAttr("padding", &text); !s.ok()) return s;
    a->same = text == "same";
    if (uses_spatial(spec.weight)) {
      if (absl::Status s = context->GetAttr("heads", &a->heads); !s.ok()) return s;
    }
    if (spec.combines) {
      if (absl::Status s = context->GetAttr("combine", &text); !s.ok()) return s;
      a->add = text == "add";
    }
    return a->check();
  }

  absl::Status check() const {
    constexpr int64_t kMost = 0x7fffffff;
    if (kernel_h % 2 == 0 || kernel_w % 2 == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Expected kernel_h and kernel_w to be odd, so that a window has a centre. Received: kernel_h=", kernel_h,
          ", kernel_w=", kernel_w));
    }
    for (auto [name, value] :
         {std::pair{"kernel_h", kernel_h}, std::pair{"kernel_w", kernel_w}, std::pair{"stride_h", stride_h},
          std::pair{"stride_w", stride_w}, std::pair{"dilation_h", dilation_h}, std::pair{"dilation_w", dilation_w},
          std::pair{"heads", heads}}) {
      if (value < 1 || value > kMost) {
        return absl::InvalidArgumentError(
            absl::StrCat("Expected ", name, " to be from 1 to ", kMost, ". Received: ", name, "=", value));
      }
    }
    // Bounds every offset inside a window; with it no index below can overflow.
    if ((kernel_h - 1) * dilation_h >= kMost || (kernel_w - 1) * dilation_w >= kMost ||
        kernel_h * kernel_w > kMost / heads) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Expected a window of fewer than 2^31 taps and pixels across. Received: kernel_h=", kernel_h,
          ", kernel_w=", kernel_w, ", dilation_h=", dilation_h, ", dilation_w=", dilation_w, ", heads=", heads));
    }
    return absl::OkStatus();
  }

  int64_t pad_h() const { return same ? (kernel_h - 1) / 2 * dilation_h : 0; }
  int64_t pad_w() const { return same ? (kernel_w - 1) / 2 * dilation_w : 0; }
  int64_t out_height(int64_t height) const { return out_size(height, (kernel_h - 1) * dilation_h, pad_h(), stride_h); }
  int64_t out_width(int64_t width) const { return out_size(width, (kernel_w - 1) * dilation_w, pad_w(), stride_w); }
  int64_t heads_by_taps() const { return heads * kernel_h * kernel_w; }

  Weight weight(const Spec& spec) const { return add ? Weight::kAdd : spec.weight; }

 private:
  static int64_t out_size(int64_t size, int64_t reach, int64_t pad, int64_t stride) {
    const int64_t steps = size + 2 * pad - reach - 1;
    return steps < 0 ? 0 : steps / stride + 1;
  }
};

using Shape = std::vector<int64_t>;

// Fills `problem` and the shape of the result. `shapes` are those of the inputs of the op, without input_size, whose
// value is given apart.
inline absl::Status make_problem(const Spec& spec, const Attributes& a, DType dtype, const std::vector<Shape>& shapes,
                                 const Shape& input_size, Problem* problem, Shape* result) {
  Problem p{};
  p.weight = a.weight(spec);
  p.member = spec.member;
  p.dtype = dtype;
  p.heads = a.heads;
  p.kernel_h = a.kernel_h, p.kernel_w = a.kernel_w;
  p.stride_h = a.stride_h, p.stride_w = a.stride_w;
  p.dilation_h = a.dilation_h, p.dilation_w = a.dilation_w;
  p.pad_h = a.pad_h(), p.pad_w = a.pad_w();

  const bool ddf = p.weight == Weight::kMul || p.weight == Weight::kAdd;
  size_t next = 0;
  const auto take = [&](const char* name, const Shape** shape) {
    *shape = &shapes[next++];
    if ((*shape)->size() == 4) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("Expected ", name, " to have rank 4. Received shape [", absl::StrJoin(**shape, ","), "]"));
  };
  const auto expect = [](const char* name, const Shape& shape, const char* dims, const Shape& expected) {
    if (shape == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("Expected ", name, " to have shape [", dims, "] = [",
                                                   absl::StrJoin(expected, ","), "]. Received shape [",
                                                   absl::StrJoin(shape, ","), "]"));
  };
  const char* spatial_name = ddf ? "spatial_filters" : "filters";
  const char* channel_name = ddf ? "channel_filters" : "filters";
  const Shape *inputs = nullptr, *channel = nullptr, *spatial = nullptr, *grad = nullptr;
  absl::Status status;
  if (reads_inputs(p)) status.Update(take("inputs", &inputs));
  if (reads_channel(p)) status.Update(take(channel_name, &channel));
  if (reads_spatial(p)) status.Update(take(spatial_name, &spatial));
  if (reads_grad(p)) status.Update(take("grad", &grad));
  if (!status.ok()) return status;

  if (inputs) {
    p.batch = (*inputs)[0], p.height = (*inputs)[1], p.width = (*inputs)[2], p.channels = (*inputs)[3];
  } else {
    if (input_size.size() != 2 || input_size[0] < 0 || input_size[1] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("Expected input_size to be the height and width of the images. Received: input_size=[",
                       absl::StrJoin(input_size, ","), "]"));
    }
    p.batch = (*grad)[0], p.height = input_size[0], p.width = input_size[1], p.channels = (*grad)[3];
    if (p.height > kMostPixels || p.width > kMostPixels) {
      return absl::InvalidArgumentError(absl::StrCat("Expected input_size to be at most 2^40. Received: input_size=[",
                                                     absl::StrJoin(input_size, ","), "]"));
    }
  }
  if (p.channels % p.heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Expected heads to divide the channels. Received: heads=", p.heads, ", channels=", p.channels));
  }
  p.out_height = a.out_height(p.height), p.out_width = a.out_width(p.width);

  const Shape channel_shape = {p.batch, p.kernel_h, p.kernel_w, p.channels};
  const Shape spatial_shape = {p.batch, p.out_height, p.out_width, a.heads_by_taps()};
  const Shape output_shape = {p.batch, p.out_height, p.out_width, p.channels};
  if (channel) status.Update(expect(channel_name, *channel, "batch,kernel_h,kernel_w,channels", channel_shape));
  if (spatial) {
    status.Update(expect(spatial_name, *spatial, "batch,out_height,out_width,heads*kernel_h*kernel_w", spatial_shape));
  }
  if (grad) status.Update(expect("grad", *grad, "batch,out_height,out_width,channels", output_shape));
  if (!status.ok()) return status;

  switch (p.member) {
    case Member::kOutput: *result = output_shape; break;
    case Member::kInputs: *result = {p.batch, p.height, p.width, p.channels}; break;
    case Member::kSpatial: *result = spatial_shape; break;
    case Member::kChannel: *result = channel_shape; break;
  }
  *problem = p;
  return absl::OkStatus();
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_PROBLEM_H_
