// SPDX-License-Identifier: Apache-2.0
// Chooses the CUDA kernel for a problem. No other file makes this choice. The code runs on the host and does not call
// CUDA.
#ifndef KERAS_DYNFILTER_CUDA_CHOOSE_KERNEL_CUH_
#define KERAS_DYNFILTER_CUDA_CHOOSE_KERNEL_CUH_

#include <algorithm>

#include "cuda/tuning.cuh"
#include "family.h"
#include "window.h"

namespace keras_dynfilter::cuda {

// The sizes of a problem as the kernels use them. If the filters have no spatial factor, there is one head.
struct Geometry {
  int64_t batch, channels, heads, head_channels, taps;
  Axis rows, columns;
  Range tap_rows, tap_columns;  // no output has an input at the other taps

  KDF_HOST_DEVICE int64_t outputs() const { return rows.out_size * columns.out_size; }
  KDF_HOST_DEVICE int64_t filters() const { return batch * outputs() * heads; }
};

inline Geometry geometry_of(const Problem& p) {
  const int64_t heads = uses_spatial(p.kind) ? p.heads : 1;
  const Axis rows = vertical_axis(p), columns = horizontal_axis(p);
  const auto used = [](const Axis& a) { return taps_between(a, {0, a.out_size}, {0, a.size}); };
  return {p.batch, p.channels, heads, p.channels / heads, taps(p), rows, columns, used(rows), used(columns)};
}

enum class Kernel {
  kGather,           // gather.cuh: the output and the gradient with respect to the inputs, every problem
  kSpatialGradient,  // spatial_gradient.cuh: every problem
  kChannelGradient,  // channel_gradient.cuh: every problem
  kFilterPerThread,  // filter_per_thread.cuh: spatial filters over few channels per head
  kStridedInputs,    // strided_inputs.cuh: the gradient with respect to the inputs, for large strides
};

struct Choice {
  Kernel kernel;
  int vec_elems;             // elements per memory access; 1 if the channels or the operands do not allow wide accesses
  int window_cols;           // kGather: 3 or 5, else 0. Filter gradients: 3 for 3x3 windows, else 0
  int max_channels;          // kFilterPerThread: the channels of a head, rounded up to 1, 4 or 16
  int threads_x, threads_y;  // kFilterPerThread: the block
  size_t shared_bytes;       // kFilterPerThread: the shared memory of a block
};

inline const char* kernel_name(Kernel kernel) {
  switch (kernel) {
    case Kernel::kGather: return "gather";
    case Kernel::kSpatialGradient: return "spatial_gradient";
    case Kernel::kChannelGradient: return "channel_gradient";
    case Kernel::kFilterPerThread: return "filter_per_thread";
    case Kernel::kStridedInputs: return "strided_inputs";
  }
  return nullptr;
}

inline bool is_3x3(const Geometry& g) { return g.rows.window == 3 && g.columns.window == 3; }

// The number of elements of `bytes` bytes that a thread moves in one access, if the channels and the operands allow it.
// In the gradient with respect to channel filters, every element has an accumulator, so the size of the accumulators
// sets the limit.
constexpr int max_vec_elems(size_t bytes, Derivative derivative) {
  const size_t accumulator = bytes == sizeof(double) ? sizeof(double) : sizeof(float);
  return static_cast<int>(kVecBytes / (derivative == Derivative::kChannel ? accumulator : bytes));
}

// Sets the block and the shared memory of kFilterPerThread. Returns false if the filters do not fit shared memory.
// Computes in floating point, so that very large sizes do not overflow.
inline bool set_filter_block(const Problem& p, const Geometry& g, size_t max_shared, Choice* choice) {
  const double limit = static_cast<double>(max_shared), accumulator = static_cast<double>(accumulator_bytes(p.dtype));
  double bytes;
  if (p.derivative == Derivative::kInputs) {
    // For each row of the window, a block reads this row of all filters that use its inputs.
    const int64_t heads = std::min<int64_t>(g.heads, kFilterThreads);
    const int64_t width = std::max<int64_t>(1, std::min(kFilterThreads / heads, g.columns.size));
    const double outputs = (width - 1 + (g.columns.window - 1.0) * g.columns.dilation) / g.columns.stride + 1;
    choice->threads_x = static_cast<int>(heads);
    choice->threads_y = static_cast<int>(width);
    bytes = outputs * heads * g.columns.window * accumulator;
  } else {
    // A block reads one whole filter per thread: as many filters as fit the default shared memory, but at least a warp.
    const double filter = static_cast<double>(g.taps) * accumulator;
    int threads = kFilterThreads;
    while (threads > kWarpSize && threads * filter > std::min<double>(kDefaultShared, limit)) threads /= 2;
    choice->threads_x = threads;
    choice->threads_y = 1;
    bytes = threads * filter;
  }
  if (bytes > limit) return false;
  choice->shared_bytes = static_cast<size_t>(bytes);
  return true;
}

// `alignment` is a power of two, at most kVecBytes, that divides the addresses of inputs, channel, grad and result.
// `max_shared` is the number of bytes of shared memory that a block can have.
inline Choice choose_kernel(const Problem& p, int64_t alignment, size_t max_shared) {
  const Geometry g = geometry_of(p);
  const bool pixels = p.derivative == Derivative::kOutput || p.derivative == Derivative::kInputs;
  Choice choice = {};
  if (p.derivative == Derivative::kInputs && std::max(p.stride_h, p.stride_w) > kMaxGatherStride) {
    choice.kernel = Kernel::kStridedInputs;
    choice.vec_elems = 1;
    return choice;
  }
  if (p.derivative != Derivative::kChannel && uses_spatial(p.kind) && g.head_channels <= kFewChannels &&
      set_filter_block(p, g, max_shared, &choice)) {
    choice.kernel = Kernel::kFilterPerThread;
    choice.max_channels = g.head_channels == 1 ? 1 : g.head_channels <= 4 ? 4 : 16;
    return choice;
  }
  const int64_t bytes = element_bytes(p.dtype);
  const int vec_elems = max_vec_elems(bytes, p.derivative);
  choice.vec_elems = g.head_channels % vec_elems == 0 && alignment % (vec_elems * bytes) == 0 ? vec_elems : 1;
  if (pixels) {
    const bool dense = g.columns.stride == 1 && g.columns.dilation == 1;
    choice.kernel = Kernel::kGather;
    choice.window_cols = dense && (g.columns.window == 3 || g.columns.window == 5) ? g.columns.window : 0;
  } else {
    choice.kernel = p.derivative == Derivative::kSpatial ? Kernel::kSpatialGradient : Kernel::kChannelGradient;
    choice.window_cols = is_3x3(g) ? 3 : 0;
  }
  return choice;
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_CHOOSE_KERNEL_CUH_
