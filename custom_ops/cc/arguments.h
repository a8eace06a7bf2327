// SPDX-License-Identifier: Apache-2.0
// Checks the attributes and shapes of an op and computes its Problem. All hosts use this file. A saved graph can call a
// raw op with any arguments, so nothing here relies on the checks of the Python functions.
#ifndef KERAS_DYNFILTER_ARGUMENTS_H_
#define KERAS_DYNFILTER_ARGUMENTS_H_

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "family.h"

namespace keras_dynfilter {

// An error message: the argument, the expected value and the received value. Empty if there is no error.
using Error = std::string;

using Shape = std::vector<int64_t>;

// Stands for a size that is not known yet, in the shapes that a shape function sees.
inline constexpr int64_t kUnknown = -1;

inline std::ostream& operator<<(std::ostream& out, const Shape& sizes) {
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) {
    out << (i ? "," : "");
    sizes[i] == kUnknown ? out << '?' : out << sizes[i];
  }
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
    for (auto [name, value] :
         {std::pair{"kernel_h", kernel_h}, std::pair{"kernel_w", kernel_w}, std::pair{"stride_h", stride_h},
          std::pair{"stride_w", stride_w}, std::pair{"dilation_h", dilation_h}, std::pair{"dilation_w", dilation_w},
          std::pair{"heads", heads}}) {
      if (value < 1 || value > kMax) {
        return message("Expected `", name, "` to be from 1 to ", kMax, ". Received: ", name, "=", value);
      }
    }
    if (kernel_h % 2 == 0 || kernel_w % 2 == 0) {
      return message("Expected `kernel_h` and `kernel_w` to be odd, so that a window has a centre. Received: kernel_h=",
                     kernel_h, ", kernel_w=", kernel_w);
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

// Checks that an attribute has one of two values. Sets `is_second` to whether it has the second value.
inline Error read_choice(const char* name, const std::string& value, const char* first, const char* second,
                         bool* is_second) {
  *is_second = value == second;
  if (*is_second || value == first) return Error();
  return message("Expected `", name, "` to be '", first, "' or '", second, "'. Received: ", name, "='", value, "'");
}

inline Error check_rank(const char* name, const Shape& shape, size_t rank) {
  if (shape.size() == rank) return Error();
  return message("Expected `", name, "` to have rank ", rank, ". Received: ", name, ".shape=", shape);
}

// Checks that a shape is as expected, as far as the sizes of both are known. Puts the known sizes of `shape` in place
// of the unknown sizes of `expected`. `axes` describes the sizes, for the error message.
inline Error merge_shape(const char* name, const Shape& shape, const char* axes,
                         std::initializer_list<int64_t*> expected) {
  if (Error error = check_rank(name, shape, expected.size()); !error.empty()) return error;
  bool fits = true;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    const int64_t size = *expected.begin()[axis];
    fits = fits && (size == shape[axis] || size == kUnknown || shape[axis] == kUnknown);
  }
  if (!fits) {
    Shape sizes;
    for (const int64_t* size : expected) sizes.push_back(*size);
    return message("Expected `", name, "` to have shape [", axes, "] = ", sizes, ". Received: ", name,
                   ".shape=", shape);
  }
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] != kUnknown) *expected.begin()[axis] = shape[axis];
  }
  return Error();
}

// Checks that a tensor has at most 2^48 elements. Sizes of zero count as ones, so that no product of sizes overflows.
inline Error check_bounded(const std::string& name, const Shape& shape) {
  if (is_bounded(shape)) return Error();
  return message("Expected ", name, " to have sizes with a product of at most 2^48, where zeros count as ones. ",
                 "Received: shape=", shape);
}

// The operand input_size: the height and width of the images.
inline Error check_input_size_shape(const Shape& shape) {
  if (shape == Shape{2} || shape == Shape{kUnknown}) return Error();
  return message("Expected `input_size` to have shape [2], for the height and width of the images. Received: ",
                 "input_size.shape=", shape);
}

inline Error check_input_size(const Shape& values) {
  for (const int64_t size : values) {
    if (size < 0 || size > kMaxProduct) {
      return message("Expected `input_size` to be from 0 to 2^48. Received: input_size=[", values[0], ",", values[1],
                     "]");
    }
  }
  return Error();
}

// The sizes of a call. They may be unknown.
struct Sizes {
  int64_t batch = kUnknown, height = kUnknown, width = kUnknown, channels = kUnknown;
  int64_t out_height = kUnknown, out_width = kUnknown;
};

// Checks the shapes of the operands, as far as they are known, and computes the sizes and the shape of the result.
// `shapes` are the shapes of the operands without input_size; `input_size` is the value of the operand input_size.
inline Error check_shapes(const FamilyOp& op, const Attributes& a, const std::vector<Shape>& shapes,
                          const Shape& input_size, Sizes* sizes, Shape* result) {
  Problem p{};
  p.kind = a.kind(op);
  p.derivative = op.derivative;
  const size_t first = op.has_input_size() ? 1 : 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (shapes[i].size() != 4) return check_rank(op.operands()[first + i], shapes[i], 4);
  }
  Sizes s;
  size_t next = 0;
  if (op.has_input_size()) {
    s.height = input_size[0], s.width = input_size[1];
    s.batch = shapes.back()[0], s.channels = shapes.back()[3];  // of grad
  }
  if (reads_inputs(p)) {
    const Shape& inputs = shapes[next++];
    s.batch = inputs[0], s.height = inputs[1], s.width = inputs[2], s.channels = inputs[3];
  }
  if (std::max(s.height, s.width) > kMaxProduct) {
    return message("Expected `inputs` to have a height and a width of at most 2^48. Received: inputs.shape=",
                   shapes[0]);
  }
  if (s.height != kUnknown) s.out_height = a.out_height(s.height);
  if (s.width != kUnknown) s.out_width = a.out_width(s.width);
  int64_t kernel_h = a.kernel_h, kernel_w = a.kernel_w, depth = a.heads_by_taps();
  const auto check_heads = [&] {
    if (s.channels == kUnknown || s.channels % a.heads == 0) return Error();
    return message("Expected `heads` to divide the channels. Received: heads=", a.heads, ", channels=", s.channels);
  };
  Error error = check_heads();
  if (error.empty() && reads_channel(p)) {
    error = merge_shape(op.channel_name(), shapes[next++], "batch,kernel_h,kernel_w,channels",
                        {&s.batch, &kernel_h, &kernel_w, &s.channels});
  }
  if (error.empty() && reads_spatial(p)) {
    error = merge_shape(op.spatial_name(), shapes[next++], "batch,out_height,out_width,heads*kernel_h*kernel_w",
                        {&s.batch, &s.out_height, &s.out_width, &depth});
  }
  if (error.empty() && reads_grad(p)) {
    error = merge_shape("grad", shapes[next++], "batch,out_height,out_width,channels",
                        {&s.batch, &s.out_height, &s.out_width, &s.channels});
  }
  if (error.empty()) error = check_heads();  // if the channels were unknown until now
  if (!error.empty()) return error;
  switch (op.derivative) {
    case Derivative::kOutput: *result = {s.batch, s.out_height, s.out_width, s.channels}; break;
    case Derivative::kInputs: *result = {s.batch, s.height, s.width, s.channels}; break;
    case Derivative::kSpatial: *result = {s.batch, s.out_height, s.out_width, depth}; break;
    case Derivative::kChannel: *result = {s.batch, kernel_h, kernel_w, s.channels}; break;
  }
  *sizes = s;
  return Error();
}

// Names the result and the arguments that its size follows from, for the error message.
inline std::string described_result(const FamilyOp& op) {
  const char* kernel = op.has_heads() ? "`kernel_h`, `kernel_w` and `heads`" : "`kernel_h` and `kernel_w`";
  const char* cause = op.has_input_size() ? "`input_size` and `grad`" : kernel;
  return message("the result, whose size follows from ", cause, ",");
}

// Computes the Problem and the shape of the result. All shapes are known.
inline Error fill_problem(const FamilyOp& op, const Attributes& a, DType dtype, const std::vector<Shape>& shapes,
                          const Shape& input_size, Problem* problem, Shape* result) {
  Sizes s;
  if (Error error = check_input_size(input_size); !error.empty()) return error;
  if (Error error = check_shapes(op, a, shapes, input_size, &s, result); !error.empty()) return error;
  const size_t first = op.has_input_size() ? 1 : 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (!is_bounded(shapes[i])) return check_bounded(message("`", op.operands()[first + i], "`"), shapes[i]);
  }
  if (!is_bounded(*result)) return check_bounded(described_result(op), *result);
  Problem p{};
  p.kind = a.kind(op);
  p.derivative = op.derivative;
  p.dtype = dtype;
  p.batch = s.batch, p.height = s.height, p.width = s.width, p.channels = s.channels;
  p.out_height = s.out_height, p.out_width = s.out_width;
  p.heads = a.heads;
  p.kernel_h = a.kernel_h, p.kernel_w = a.kernel_w;
  p.stride_h = a.stride_h, p.stride_w = a.stride_w;
  p.dilation_h = a.dilation_h, p.dilation_w = a.dilation_w;
  p.pad_h = a.pad_h(), p.pad_w = a.pad_w();
  *problem = p;
  return Error();
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_ARGUMENTS_H_
