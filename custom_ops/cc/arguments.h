// SPDX-License-Identifier: Apache-2.0
// Checks the attributes and shapes of an op and computes its Problem. All hosts use this file. A saved graph can call a
// raw op with any arguments, so nothing here relies on the checks of the Python functions.
#ifndef KERAS_DYNFILTER_ARGUMENTS_H_
#define KERAS_DYNFILTER_ARGUMENTS_H_

#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "family.h"

namespace keras_dynfilter {

// An error message: the argument, the expected value and the received value. Empty if there is no error.
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

// An op of the family.
struct FamilyOp {
  const char* name;
  FilterKind kind;
  Derivative derivative;

  bool has_input_size() const { return derivative == Derivative::kInputs; }
  bool has_heads() const { return uses_spatial(kind); }
  // Whether the attribute `combine` chooses between kMul and kAdd.
  bool has_combine() const {
    return kind == FilterKind::kMul && (derivative == Derivative::kOutput || derivative == Derivative::kInputs);
  }
  const char* channel_name() const { return kind == FilterKind::kMul ? "channel_filters" : "filters"; }
  const char* spatial_name() const { return kind == FilterKind::kMul ? "spatial_filters" : "filters"; }

  // The names of the operands, in order. The first operand of a gradient with respect to the inputs is input_size, the
  // height and width of the images.
  std::vector<const char*> operands() const {
    Problem p{};
    p.kind = kind;
    p.derivative = derivative;
    std::vector<const char*> names;
    if (has_input_size()) names.push_back("input_size");
    if (reads_inputs(p)) names.push_back("inputs");
    if (reads_channel(p)) names.push_back(channel_name());
    if (reads_spatial(p)) names.push_back(spatial_name());
    if (reads_grad(p)) names.push_back("grad");
    return names;
  }
};

#define FAMILY_OP(name, kind, derivative) {"KerasDynfilter>" #name, FilterKind::kind, Derivative::derivative},
inline constexpr FamilyOp kFamilyOps[] = {
#include "family_ops.inc"
};
#undef FAMILY_OP

inline const FamilyOp* find_op(const std::string& name) {
  for (const FamilyOp& op : kFamilyOps) {
    if (name == op.name) return &op;
  }
  return nullptr;
}

// The largest size of an image along one axis. The limit keeps the arithmetic on sizes far from overflow.
inline constexpr int64_t kMaxPixels = int64_t{1} << 40;

struct Attributes {
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, heads = 1;
  bool same = true, add = false;

  // The integer attributes of an op, by name.
  std::vector<std::pair<const char*, int64_t*>> numbers(const FamilyOp& op) {
    std::vector<std::pair<const char*, int64_t*>> all = {{"kernel_h", &kernel_h},     {"kernel_w", &kernel_w},
                                                         {"stride_h", &stride_h},     {"stride_w", &stride_w},
                                                         {"dilation_h", &dilation_h}, {"dilation_w", &dilation_w}};
    if (op.has_heads()) all.emplace_back("heads", &heads);
    return all;
  }

  Error check() const {
    constexpr int64_t kMax = 0x7fffffff;
    if (kernel_h % 2 == 0 || kernel_w % 2 == 0) {
      return message("Expected kernel_h and kernel_w to be odd, so that a window has a centre. Received: kernel_h=",
                     kernel_h, ", kernel_w=", kernel_w);
    }
    for (auto [name, value] :
         {std::pair{"kernel_h", kernel_h}, std::pair{"kernel_w", kernel_w}, std::pair{"stride_h", stride_h},
          std::pair{"stride_w", stride_w}, std::pair{"dilation_h", dilation_h}, std::pair{"dilation_w", dilation_w},
          std::pair{"heads", heads}}) {
      if (value < 1 || value > kMax) {
        return message("Expected ", name, " to be from 1 to ", kMax, ". Received: ", name, "=", value);
      }
    }
    // This check bounds every offset inside a window, so that no index below can overflow.
    if ((kernel_h - 1) * dilation_h >= kMax || (kernel_w - 1) * dilation_w >= kMax ||
        kernel_h * kernel_w > kMax / heads) {
      return message("Expected a window of fewer than 2^31 taps and pixels across. Received: kernel_h=", kernel_h,
                     ", kernel_w=", kernel_w, ", dilation_h=", dilation_h, ", dilation_w=", dilation_w,
                     ", heads=", heads);
    }
    return Error();
  }

  int64_t pad_h() const { return same ? (kernel_h - 1) / 2 * dilation_h : 0; }
  int64_t pad_w() const { return same ? (kernel_w - 1) / 2 * dilation_w : 0; }
  int64_t out_height(int64_t height) const {
    return keras_dynfilter::out_size(height, (kernel_h - 1) * dilation_h, pad_h(), stride_h);
  }
  int64_t out_width(int64_t width) const {
    return keras_dynfilter::out_size(width, (kernel_w - 1) * dilation_w, pad_w(), stride_w);
  }
  int64_t heads_by_taps() const { return heads * kernel_h * kernel_w; }

  FilterKind kind(const FamilyOp& op) const { return add ? FilterKind::kAdd : op.kind; }
};

// Computes the Problem and the shape of the result. `shapes` are the shapes of the operands without input_size;
// `input_size` is the value of the operand input_size.
inline Error fill_problem(const FamilyOp& op, const Attributes& a, DType dtype, const std::vector<Shape>& shapes,
                          const Shape& input_size, Problem* problem, Shape* result) {
  Problem p{};
  p.kind = a.kind(op);
  p.derivative = op.derivative;
  p.dtype = dtype;
  p.heads = a.heads;
  p.kernel_h = a.kernel_h, p.kernel_w = a.kernel_w;
  p.stride_h = a.stride_h, p.stride_w = a.stride_w;
  p.dilation_h = a.dilation_h, p.dilation_w = a.dilation_w;
  p.pad_h = a.pad_h(), p.pad_w = a.pad_w();

  size_t next = 0;
  const auto next_shape = [&](const char* name, const Shape** shape) {
    *shape = &shapes[next++];
    if ((*shape)->size() == 4) return Error();
    return message("Expected ", name, " to have rank 4. Received shape ", **shape);
  };
  const auto expect = [](const char* name, const Shape& shape, const char* dims, const Shape& expected) {
    if (shape == expected) return Error();
    return message("Expected ", name, " to have shape [", dims, "] = ", expected, ". Received shape ", shape);
  };
  const Shape *inputs = nullptr, *channel = nullptr, *spatial = nullptr, *grad = nullptr;
  Error error;
  const auto record = [&error](const Error& next_error) {
    if (error.empty()) error = next_error;
  };
  if (reads_inputs(p)) record(next_shape("inputs", &inputs));
  if (reads_channel(p)) record(next_shape(op.channel_name(), &channel));
  if (reads_spatial(p)) record(next_shape(op.spatial_name(), &spatial));
  if (reads_grad(p)) record(next_shape("grad", &grad));
  if (!error.empty()) return error;

  if (inputs) {
    p.batch = (*inputs)[0], p.height = (*inputs)[1], p.width = (*inputs)[2], p.channels = (*inputs)[3];
  } else {
    if (input_size.size() != 2 || input_size[0] < 0 || input_size[1] < 0) {
      return message("Expected input_size to be the height and width of the images. Received: input_size=", input_size);
    }
    p.batch = (*grad)[0], p.height = input_size[0], p.width = input_size[1], p.channels = (*grad)[3];
    if (p.height > kMaxPixels || p.width > kMaxPixels) {
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
  if (channel) record(expect(op.channel_name(), *channel, "batch,kernel_h,kernel_w,channels", channel_shape));
  if (spatial) {
    record(expect(op.spatial_name(), *spatial, "batch,out_height,out_width,heads*kernel_h*kernel_w", spatial_shape));
  }
  if (grad) record(expect("grad", *grad, "batch,out_height,out_width,channels", output_shape));
  if (!error.empty()) return error;

  switch (p.derivative) {
    case Derivative::kOutput: *result = output_shape; break;
    case Derivative::kInputs: *result = {p.batch, p.height, p.width, p.channels}; break;
    case Derivative::kSpatial: *result = spatial_shape; break;
    case Derivative::kChannel: *result = channel_shape; break;
  }
  *problem = p;
  return Error();
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_ARGUMENTS_H_
