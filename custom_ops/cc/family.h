// SPDX-License-Identifier: Apache-2.0
// The dynamic filter family: one formula, its derivatives, and the functions that compute them on CPU and GPU.
//
//   out[n,i,j,c] = sum_t w(n,i,j,t,c) * inputs[n, i*stride + u*dilation - pad, j*stride + v*dilation - pad, c]
//
// Here t = u*kernel_w + v numbers the taps, and taps outside the image are skipped. The filter value w is computed from
// a spatial factor S[n,i,j,head(c),t] and a channel factor C[n,t,c]; `FilterKind` selects the formula.
//
// The scalar <grad, out>, the sum of grad * out, is linear in inputs and in grad, and linear up to a constant in S and
// in C. Its derivative with respect to one operand is therefore a function of the other operands. The forward op is the
// derivative with respect to grad, the gradients are the other derivatives, and the gradients of the gradients are
// again derivatives of this scalar. The softmax is the exception, because it is not linear in S.
//
// This file depends on no framework. Each host (TensorFlow, XLA, ONNX Runtime) fills a Problem, checks it, and passes
// it with the Buffers.
#ifndef KERAS_DYNFILTER_FAMILY_H_
#define KERAS_DYNFILTER_FAMILY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "parallel.h"

namespace keras_dynfilter {

// How the filter value w is computed: S, C, S * C, S + C, or the softmax of S over the taps of each filter.
enum class FilterKind : int64_t { kSpatial, kChannel, kMul, kAdd, kSoftmax };

// Which derivative of <grad, out> is computed, named by the tensor whose shape the result has. kOutput is the forward
// op, the derivative with respect to grad.
enum class Derivative : int64_t { kOutput, kInputs, kSpatial, kChannel };

enum class DType : int64_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

// The sizes of one call, channels last. All are in elements and non-negative; strides, dilations, heads are at least 1.
struct Problem {
  FilterKind kind;
  Derivative derivative;
  DType dtype;
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;
  int64_t heads;  // divides channels; head(c) = c / (channels / heads)
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t dilation_h, dilation_w;
  int64_t pad_h, pad_w;  // rows above the image and columns to its left
};

inline constexpr int64_t kProblemFields = sizeof(Problem) / sizeof(int64_t);

// The part of a Problem that belongs to one axis of the image.
struct Axis {
  int64_t size, out_size, window, stride, dilation, pad;
};

inline Axis vertical_axis(const Problem& p) {
  return {p.height, p.out_height, p.kernel_h, p.stride_h, p.dilation_h, p.pad_h};
}
inline Axis horizontal_axis(const Problem& p) {
  return {p.width, p.out_width, p.kernel_w, p.stride_w, p.dilation_w, p.pad_w};
}

// The type in which sums are accumulated.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

inline int64_t accumulator_bytes(DType dtype) { return dtype == DType::kFloat64 ? sizeof(double) : sizeof(float); }

// The number of bytes of an element of a tensor.
inline int64_t element_bytes(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

inline constexpr int64_t taps(const Problem& p) { return p.kernel_h * p.kernel_w; }
inline constexpr bool uses_spatial(FilterKind kind) { return kind != FilterKind::kChannel; }
inline constexpr bool uses_channel(FilterKind kind) {
  return kind == FilterKind::kChannel || kind == FilterKind::kMul || kind == FilterKind::kAdd;
}

// The number of outputs along an axis. `extent` is the distance between the first and the last tap of the window.
inline constexpr int64_t out_size(int64_t size, int64_t extent, int64_t pad, int64_t stride) {
  const int64_t steps = size - 1 + (2 * pad - extent);  // 2 * pad <= extent, so this order cannot overflow
  return steps < 0 ? 0 : steps / stride + 1;
}

// Shapes: inputs [batch, height, width, channels], grad [batch, out_height, out_width, channels], spatial [batch,
// out_height, out_width, heads * taps], channel [batch, taps, channels].
inline constexpr int64_t inputs_size(const Problem& p) { return p.batch * p.height * p.width * p.channels; }
inline constexpr int64_t output_size(const Problem& p) { return p.batch * p.out_height * p.out_width * p.channels; }
inline constexpr int64_t spatial_size(const Problem& p) {
  return p.batch * p.out_height * p.out_width * p.heads * taps(p);
}
inline constexpr int64_t channel_size(const Problem& p) { return p.batch * taps(p) * p.channels; }

inline constexpr int64_t result_size(const Problem& p) {
  switch (p.derivative) {
    case Derivative::kOutput: return output_size(p);
    case Derivative::kInputs: return inputs_size(p);
    case Derivative::kSpatial: return spatial_size(p);
    case Derivative::kChannel: return channel_size(p);
  }
  return 0;
}

// Whether the result is a sum over outputs, and there are no outputs. Then the result is zero, whatever its size.
inline constexpr bool is_empty_sum(const Problem& p) {
  return (p.derivative == Derivative::kInputs || p.derivative == Derivative::kChannel) && output_size(p) == 0;
}

// Which operands a derivative reads: all operands of its kind except the one it is taken with respect to. The
// derivative of the softmax with respect to its logits also reads the logits. No op computes the derivatives of S + C
// with respect to S and C; see cpu::run.
inline constexpr bool reads_inputs(const Problem& p) { return p.derivative != Derivative::kInputs; }
inline constexpr bool reads_grad(const Problem& p) { return p.derivative != Derivative::kOutput; }
inline constexpr bool reads_spatial(const Problem& p) {
  return uses_spatial(p.kind) && (p.derivative != Derivative::kSpatial || p.kind == FilterKind::kSoftmax);
}
inline constexpr bool reads_channel(const Problem& p) {
  return uses_channel(p.kind) && p.derivative != Derivative::kChannel;
}

// The largest product of sizes. It keeps the arithmetic on sizes far from overflow.
inline constexpr int64_t kMaxProduct = int64_t{1} << 48;

// Whether the product of the sizes, with zeros counted as ones, is at most 2^48. Then no partial product overflows.
template <class Sizes>
constexpr bool is_bounded(const Sizes& sizes) {
  int64_t elements = 1;
  for (const int64_t size : sizes) {
    if (size > 0 && elements > kMaxProduct / size) return false;
    elements *= std::max<int64_t>(size, 1);
  }
  return true;
}

// Whether every tensor of the call is bounded.
inline bool has_bounded_tensors(const Problem& p) {
  using Sizes = std::initializer_list<int64_t>;
  return is_bounded(Sizes{p.batch, p.height, p.width, p.channels}) &&
         is_bounded(Sizes{p.batch, p.out_height, p.out_width, p.channels}) &&
         (!uses_spatial(p.kind) ||
          is_bounded(Sizes{p.batch, p.out_height, p.out_width, p.heads, p.kernel_h, p.kernel_w})) &&
         (!uses_channel(p.kind) || is_bounded(Sizes{p.batch, p.kernel_h, p.kernel_w, p.channels}));
}

// Checks that the fields are consistent, so that the kernels compute the formula and no index overflows. A host that
// receives a complete Problem from outside has to call this function. fill_problem checks the shapes from which it
// computes a Problem.
inline bool valid(const Problem& p) {
  constexpr int64_t kMaxSize = int64_t{1} << 31;
  const auto within = [](int64_t value, int64_t min, int64_t max) { return value >= min && value <= max; };
  if (!within(static_cast<int64_t>(p.kind), 0, 4) || !within(static_cast<int64_t>(p.derivative), 0, 3) ||
      !within(static_cast<int64_t>(p.dtype), 0, 3)) {
    return false;
  }
  if (p.derivative == Derivative::kSpatial && (!uses_spatial(p.kind) || p.kind == FilterKind::kAdd)) return false;
  if (p.derivative == Derivative::kChannel && (!uses_channel(p.kind) || p.kind == FilterKind::kAdd)) return false;
  for (const int64_t size : {p.batch, p.height, p.width, p.channels, p.out_height, p.out_width}) {
    if (!within(size, 0, kMaxProduct)) return false;
  }
  for (const int64_t value : {p.heads, p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.dilation_h, p.dilation_w}) {
    if (!within(value, 1, kMaxSize)) return false;
  }
  if (!has_bounded_tensors(p)) return false;
  const auto fits = [&](const Axis& a) {
    const int64_t extent = (a.window - 1) * a.dilation;
    return a.window % 2 == 1 && extent < kMaxSize && (a.pad == 0 || a.pad == extent / 2) &&
           a.out_size == out_size(a.size, extent, a.pad, a.stride);
  };
  return p.channels % p.heads == 0 && fits(vertical_axis(p)) && fits(horizontal_axis(p));
}

// Operands that a derivative does not read may be null. `result` never overlaps an operand.
struct Buffers {
  const void* inputs = nullptr;
  const void* spatial = nullptr;
  const void* channel = nullptr;
  const void* grad = nullptr;
  void* result = nullptr;
  void* workspace = nullptr;  // workspace_bytes(problem) bytes, aligned to 64
};

namespace cpu {

size_t workspace_bytes(const Problem& problem);

// Computes the result, with the same bits for every ParallelFor. It does not compute the derivatives of
// FilterKind::kAdd with respect to S and C: callers use the derivatives of FilterKind::kSpatial and
// FilterKind::kChannel, which are equal. Throws std::bad_alloc, in the calling thread, if memory for a very large
// filter cannot be allocated.
void run(const Problem& problem, const Buffers& buffers, const ParallelFor& parallel_for);

}  // namespace cpu

namespace cuda {

size_t workspace_bytes(const Problem& problem);

// Enqueues the kernels on `stream`, a cudaStream_t. Returns null, or CUDA's error message.
const char* run(const Problem& problem, const Buffers& buffers, void* stream);

}  // namespace cuda

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_FAMILY_H_
