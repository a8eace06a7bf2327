// SPDX-License-Identifier: Apache-2.0
// From an op's attributes and shapes to a checked Problem. All hosts share it: raw ops can be reached from any graph,
// so what the Python functions check does not count here.
#ifndef KERAS_DYNFILTER_ARGUMENTS_H_
#define KERAS_DYNFILTER_ARGUMENTS_H_

#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "filter.h"

namespace keras_dynfilter {

// What is wrong: the argument, what was expected, and what came. Empty if nothing is.
using Error = std::string;

using Shape = std::vector<int64_t>;

inline std::ostream& operator<<(std::ostream& out, const Shape& sizes) {
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? "," : "") << sizes[i];
  return out << ']';
}

template <typename... Parts>
Error message(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

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

  // The integers by name; heads only where there are any.
  std::vector<std::pair<const char*, int64_t*>> numbers(const Spec& spec) {
    std::vector<std::pair<const char*, int64_t*>> all = {{"kernel_h", &kernel_h},     {"kernel_w", &kernel_w},
                                                         {"stride_h", &stride_h},     {"stride_w", &stride_w},
                                                         {"dilation_h", &dilation_h}, {"dilation_w", &dilation_w}};
    if (uses_spatial(spec.weight)) all.emplace_back("heads", &heads);
    return all;
  }

  Error check() const {
    constexpr int64_t kMost = 0x7fffffff;
    if (kernel_h % 2 == 0 || kernel_w % 2 == 0) {
      return message("Expected kernel_h and kernel_w to be odd, so that a window has a centre. Received: kernel_h=",
                     kernel_h, ", kernel_w=", kernel_w);
    }
    for (auto [name, value] :
         {std::pair{"kernel_h", kernel_h}, std::pair{"kernel_w", kernel_w}, std::pair{"stride_h", stride_h},
          std::pair{"stride_w", stride_w}, std::pair{"dilation_h", dilation_h}, std::pair{"dilation_w", dilation_w},
          std::pair{"heads", heads}}) {
      if (value < 1 || value > kMost) {
        return message("Expected ", name, " to be from 1 to ", kMost, ". Received: ", name, "=", value);
      }
    }
    // Bounds every offset inside a window; with it no index below can overflow.
    if ((kernel_h - 1) * dilation_h >= kMost || (kernel_w - 1) * dilation_w >= kMost ||
        kernel_h * kernel_w > kMost / heads) {
      return message("Expected a window of fewer than 2^31 taps and pixels across. Received: kernel_h=", kernel_h,
                     ", kernel_w=", kernel_w, ", dilation_h=", dilation_h, ", dilation_w=", dilation_w,
                     ", heads=", heads);
    }
    return Error();
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

// Fills `problem` and the shape of the result. `shapes` are those of the inputs of the op, without input_size, whose
// value is given apart.
inline Error fill_problem(const Spec& spec, const Attributes& a, DType dtype, const std::vector<Shape>& shapes,
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
    if ((*shape)->size() == 4) return Error();
    return message("Expected ", name, " to have rank 4. Received shape ", **shape);
  };
  const auto expect = [](const char* name, const Shape& shape, const char* dims, const Shape& expected) {
    if (shape == expected) return Error();
    return message("Expected ", name, " to have shape [", dims, "] = ", expected, ". Received shape ", shape);
  };
  const char* spatial_name = ddf ? "spatial_filters" : "filters";
  const char* channel_name = ddf ? "channel_filters" : "filters";
  const Shape *inputs = nullptr, *channel = nullptr, *spatial = nullptr, *grad = nullptr;
  Error error;
  const auto update = [&error](const Error& found) {
    if (error.empty()) error = found;
  };
  if (reads_inputs(p)) update(take("inputs", &inputs));
  if (reads_channel(p)) update(take(channel_name, &channel));
  if (reads_spatial(p)) update(take(spatial_name, &spatial));
  if (reads_grad(p)) update(take("grad", &grad));
  if (!error.empty()) return error;

  if (inputs) {
    p.batch = (*inputs)[0], p.height = (*inputs)[1], p.width = (*inputs)[2], p.channels = (*inputs)[3];
  } else {
    if (input_size.size() != 2 || input_size[0] < 0 || input_size[1] < 0) {
      return message("Expected input_size to be the height and width of the images. Received: input_size=", input_size);
    }
    p.batch = (*grad)[0], p.height = input_size[0], p.width = input_size[1], p.channels = (*grad)[3];
    if (p.height > kMostPixels || p.width > kMostPixels) {
      return message("Expected input_size to be at most 2^40. Received: input_size=", input_size);
    }
  }
  if (p.channels % p.heads != 0) {
    return message("Expected heads to divide the channels. Received: heads=", p.heads, ", channels=", p.channels);
  }
  p.out_height = a.out_height(p.height), p.out_width = a.out_width(p.width);

  const Shape channel_shape = {p.batch, p.kernel_h, p.kernel_w, p.channels};
  const Shape spatial_shape = {p.batch, p.out_height, p.out_width, a.heads_by_taps()};
  const Shape output_shape = {p.batch, p.out_height, p.out_width, p.channels};
  if (channel) update(expect(channel_name, *channel, "batch,kernel_h,kernel_w,channels", channel_shape));
  if (spatial) {
    update(expect(spatial_name, *spatial, "batch,out_height,out_width,heads*kernel_h*kernel_w", spatial_shape));
  }
  if (grad) update(expect("grad", *grad, "batch,out_height,out_width,channels", output_shape));
  if (!error.empty()) return error;

  switch (p.member) {
    case Member::kOutput: *result = output_shape; break;
    case Member::kInputs: *result = {p.batch, p.height, p.width, p.channels}; break;
    case Member::kSpatial: *result = spatial_shape; break;
    case Member::kChannel: *result = channel_shape; break;
  }
  *problem = p;
  return Error();
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_ARGUMENTS_H_
