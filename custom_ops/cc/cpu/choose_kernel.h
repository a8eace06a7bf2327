// SPDX-License-Identifier: Apache-2.0
// Chooses the CPU kernel for a problem. No other file makes this choice. It depends only on the problem and the width
// of the vector registers.
#ifndef KERAS_DYNFILTER_CPU_CHOOSE_KERNEL_H_
#define KERAS_DYNFILTER_CPU_CHOOSE_KERNEL_H_

#include "family.h"

namespace keras_dynfilter::cpu {

enum class Kernel {
  kChannelLanes,  // vector lanes along the channels of a head; valid for every problem
  kChannelTiles,  // like kChannelLanes, for four neighbouring pixels at a time: windows of three or five columns
  kTapLanes,      // vector lanes along the taps of a filter: local filters over few channels per head
  kFlatLanes,     // vector lanes along pixels and channels in memory order: depthwise filters, few channels
};

struct Choice {
  Kernel kernel;
  bool streams;  // whether results that are aligned to a vector bypass the caches
};

inline const char* kernel_name(Kernel kernel) {
  switch (kernel) {
    case Kernel::kChannelLanes: return "channel_lanes";
    case Kernel::kChannelTiles: return "channel_tiles";
    case Kernel::kTapLanes: return "tap_lanes";
    case Kernel::kFlatLanes: return "flat_lanes";
  }
  return nullptr;
}

// The sizes of the arrays that kFlatLanes has on the stack: the vectors of one filter, and the accumulators of padded
// rows.
inline constexpr int64_t kFlatMaxTaps = 256, kFlatScratch = 4096;

// The number of pixels of a row that kTapLanes computes at a time, in the gradient with respect to the inputs.
inline constexpr int64_t kTapLanesTile = 256;

// The number of accumulators (columns times channels) that kFlatLanes computes at a time. It is not positive if the
// window does not fit the arrays.
inline int64_t flat_tile(const Problem& p, int64_t lanes) {
  const int64_t per_row = taps(p) <= kFlatMaxTaps ? kFlatScratch / p.kernel_h : 0;
  const int64_t halo = (p.kernel_w - 1) * p.dilation_w * p.channels;
  return (per_row - halo) / lanes * lanes;
}

// `lanes` is the number of accumulators in a vector register.
inline Choice choose_kernel(const Problem& p, int64_t lanes) {
  constexpr int64_t kStreamedBytes = 16 << 20;  // results of this size do not fit the caches
  const int64_t head_channels = p.channels / p.heads;
  const bool whole_vectors = head_channels % lanes == 0;
  const bool makes_pixels = p.derivative == Derivative::kOutput || p.derivative == Derivative::kInputs;
  // With a larger stride, most taps of a filter would not reach a tile.
  const bool tap_tiles = p.derivative != Derivative::kInputs || p.stride_w <= kTapLanesTile;
  if ((p.kind == FilterKind::kSpatial || p.kind == FilterKind::kSoftmax) && head_channels < lanes && tap_tiles) {
    return {Kernel::kTapLanes, false};
  }
  if (p.kind == FilterKind::kChannel && p.stride_w == 1 && p.channels > 0 && p.channels < lanes &&
      lanes % p.channels == 0 && (!makes_pixels || flat_tile(p, lanes) > 0)) {
    return {Kernel::kFlatLanes, false};
  }
  const int64_t bytes = element_bytes(p.dtype) == 2 ? 0 : element_bytes(p.dtype);  // half types never stream
  const bool streams = makes_pixels && whole_vectors && result_size(p) * bytes >= kStreamedBytes;
  const bool tiles =
      makes_pixels && whole_vectors && p.stride_w == 1 && p.dilation_w == 1 && (p.kernel_w == 3 || p.kernel_w == 5);
  return {tiles ? Kernel::kChannelTiles : Kernel::kChannelLanes, streams};
}

}  // namespace keras_dynfilter::cpu

#endif  // KERAS_DYNFILTER_CPU_CHOOSE_KERNEL_H_
