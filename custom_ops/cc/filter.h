// SPDX-License-Identifier: Apache-2.0
// The dynamic filter family: one formula, its derivatives, and the entry points that compute them on CPU and GPU.
//
//   out[n,i,j,c] = sum_t w(n,i,j,t,c) * inputs[n, i*stride + u*dilation - pad, j*stride + v*dilation - pad, c]
//
// with t = u*kernel_w + v, taps outside the image skipped, and the weight w put together from a spatial factor
// S[n,i,j,head(c),t] and a channel factor C[n,t,c]. The scalar <grad, out> is linear in each of its operands
// inputs, S, C and grad, so its derivative by one of them (a `Member` of the family) is a function of the others:
// the forward op is the member of `grad`, the gradients are the other members, and so are their gradients.
//
// Nothing here knows TensorFlow: every host (TensorFlow, XLA, ...) fills a Problem, which it has checked, and Buffers.
#ifndef KERAS_DYNFILTER_FILTER_H_
#define KERAS_DYNFILTER_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>

namespace keras_dynfilter {

// How the weight is put together. kSoftmax: S holds logits, normalised over the taps of each filter.
enum class Weight : int64_t { kSpatial, kChannel, kMul, kAdd, kSoftmax };

// Which derivative of <grad, out> is computed, named by the operand whose shape it has.
enum class Member : int64_t { kOutput, kInputs, kSpatial, kChannel };

enum class DType : int64_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

// Channels-last sizes of one call. All are in elements and non-negative; strides, dilations, heads are at least 1.
struct Problem {
  Weight weight;
  Member member;
  DType dtype;
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;
  int64_t heads;  // divides channels; head(c) = c / (channels / heads)
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t dilation_h, dilation_w;
  int64_t pad_h, pad_w;  // rows above and columns left of the image
};

inline constexpr int64_t kProblemFields = sizeof(Problem) / sizeof(int64_t);

inline constexpr int64_t taps(const Problem& p) { return p.kernel_h * p.kernel_w; }
inline constexpr bool uses_spatial(Weight w) { return w != Weight::kChannel; }
inline constexpr bool uses_channel(Weight w) { return w == Weight::kChannel || w == Weight::kMul || w == Weight::kAdd; }

// Shapes: inputs [batch, height, width, channels], grad [batch, out_height, out_width, channels],
// spatial [batch, out_height, out_width, heads * taps], channel [batch, taps, channels].
inline constexpr int64_t inputs_size(const Problem& p) { return p.batch * p.height * p.width * p.channels; }
inline constexpr int64_t output_size(const Problem& p) { return p.batch * p.out_height * p.out_width * p.channels; }
inline constexpr int64_t spatial_size(const Problem& p) {
  return p.batch * p.out_height * p.out_width * p.heads * taps(p);
}
inline constexpr int64_t channel_size(const Problem& p) { return p.batch * taps(p) * p.channels; }

inline constexpr int64_t result_size(const Problem& p) {
  switch (p.member) {
    case Member::kOutput: return output_size(p);
    case Member::kInputs: return inputs_size(p);
    case Member::kSpatial: return spatial_size(p);
    case Member::kChannel: return channel_size(p);
  }
  return 0;
}

// Which operands a member reads: all that its weight has except the one it is the derivative by. The derivative of
// a sum S + C by one of its terms is that of the term alone; the derivative by logits needs the logits too.
inline constexpr bool reads_inputs(const Problem& p) { return p.member != Member::kInputs; }
inline constexpr bool reads_grad(const Problem& p) { return p.member != Member::kOutput; }
inline constexpr bool reads_spatial(const Problem& p) {
  return uses_spatial(p.weight) && (p.member != Member::kSpatial || p.weight == Weight::kSoftmax);
}
inline constexpr bool reads_channel(const Problem& p) { return uses_channel(p.weight) && p.member != Member::kChannel; }

// Whether the fields make sense together, so that the kernels compute what the formula says and no index overflows.
// For hosts that get a Problem from outside; those that derive one from shapes have checked as they went.
inline bool valid(const Problem& p) {
  constexpr int64_t kMost = int64_t{1} << 31, kMostElements = int64_t{1} << 48;
  const auto within = [](int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; };
  if (!within(static_cast<int64_t>(p.weight), 0, 4) || !within(static_cast<int64_t>(p.member), 0, 3) ||
      !within(static_cast<int64_t>(p.dtype), 0, 3)) {
    return false;
  }
  if (p.member == Member::kSpatial && (!uses_spatial(p.weight) || p.weight == Weight::kAdd)) return false;
  if (p.member == Member::kChannel && (!uses_channel(p.weight) || p.weight == Weight::kAdd)) return false;
  for (const int64_t size : {p.batch, p.height, p.width, p.channels, p.out_height, p.out_width}) {
    if (!within(size, 0, kMost)) return false;
  }
  for (const int64_t value : {p.heads, p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.dilation_h, p.dilation_w}) {
    if (!within(value, 1, kMost)) return false;
  }
  int64_t elements = 1;  // of a tensor as large as the sizes allow any to be
  const int64_t pixels_h = p.height > p.out_height ? p.height : p.out_height;
  const int64_t pixels_w = p.width > p.out_width ? p.width : p.out_width;
  const int64_t depth = p.channels > p.heads ? p.channels : p.heads;
  for (const int64_t size : {p.batch, pixels_h, pixels_w, depth, p.kernel_h, p.kernel_w}) {
    if (size > 0 && elements > kMostElements / size) return false;
    elements *= size > 0 ? size : 1;
  }
  const auto fits = [&](int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
    const int64_t reach = (kernel - 1) * dilation, steps = size + 2 * pad - reach - 1;
    return kernel % 2 == 1 && reach < kMost && (pad == 0 || pad == reach / 2) &&
           out == (steps < 0 ? 0 : steps / stride + 1);
  };
  return p.channels % p.heads == 0 && fits(p.height, p.out_height, p.kernel_h, p.stride_h, p.dilation_h, p.pad_h) &&
         fits(p.width, p.out_width, p.kernel_w, p.stride_w, p.dilation_w, p.pad_w);
}

// Operands that a member does not read may be null. `result` never overlaps an operand.
struct Buffers {
  const void* inputs = nullptr;
  const void* spatial = nullptr;
  const void* channel = nullptr;
  const void* grad = nullptr;
  void* result = nullptr;
  void* workspace = nullptr;  // workspace_bytes(problem), aligned to 64 bytes
};

namespace cpu {

// Runs body(begin, end) over disjoint ranges that cover [0, total); `cost` is in nanoseconds per unit, roughly.
using ParallelFor =
    std::function<void(int64_t total, int64_t cost, const std::function<void(int64_t begin, int64_t end)>& body)>;

size_t workspace_bytes(const Problem& problem);

// Results are bitwise the same for any ParallelFor. `problem.member` must exist for its weight: kSpatial and kChannel
// of kAdd are asked for as those of kSpatial and kChannel.
void run(const Problem& problem, const Buffers& buffers, const ParallelFor& parallel_for);

}  // namespace cpu

namespace cuda {

size_t workspace_bytes(const Problem& problem);

// Enqueues the kernels on `stream`, a cudaStream_t. Returns null, or what CUDA says went wrong.
const char* run(const Problem& problem, const Buffers& buffers, void* stream);

}  // namespace cuda

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_FILTER_H_
