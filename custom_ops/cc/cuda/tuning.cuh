// SPDX-License-Identifier: Apache-2.0
// All tuning constants of the CUDA kernels. They are derived from properties of the hardware, not from measurements.
#ifndef KERAS_DYNFILTER_CUDA_TUNING_CUH_
#define KERAS_DYNFILTER_CUDA_TUNING_CUH_

#include <cstddef>
#include <cstdint>

namespace keras_dynfilter::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kFullWarp = 0xffffffffu;
inline constexpr size_t kDefaultShared = 48 * 1024;  // bytes of shared memory that a kernel has by default
inline constexpr int kVecBytes = 16;                 // the widest memory access of a thread

// The largest number of threads in a block, except in the kernels with one filter per thread.
inline constexpr int kThreads = 256;

// gather.cuh: a thread computes kRun neighbouring pixels of a row; a block covers kTileRows rows.
inline constexpr int kRun = 4;
inline constexpr int kTileRows = 8;

// spatial_gradient.cuh and channel_gradient.cuh: kTapTile taps are summed at a time, so a 3x3 window takes one pass.
// The loads of kTapsInFlight taps are issued before the first product.
inline constexpr int kTapTile = 9;
inline constexpr int kTapsInFlight = 3;

// channel_gradient.cuh: a sum over positions is split into chunks, to have kChunkBlocks blocks, which is enough for any
// device. A chunk has at least kChunkElements elements, counted over up to kChunkChannels channels, even if this leaves
// fewer blocks.
inline constexpr int64_t kChunkBlocks = 1024;
inline constexpr int64_t kChunkElements = 8192;
inline constexpr int64_t kChunkChannels = 128;
inline constexpr int kChannelBlocksPerMultiprocessor = 2;  // limits the registers of a thread
inline constexpr int kSumGroups = 8;                       // the warps of a block that add up chunks

// gather.cuh and filter_per_thread.cuh test every tap of a window in the gradient with respect to the inputs. With
// larger strides, most taps have no output, and strided_inputs.cuh finds the taps by arithmetic.
inline constexpr int64_t kMaxGatherStride = 16;

// filter_per_thread.cuh: the largest number of threads in a block, and the largest number of channels per head for
// which these kernels are used.
inline constexpr int kFilterThreads = 128;
inline constexpr int64_t kFewChannels = 15;

// softmax.cuh: taps per thread.
inline constexpr int64_t kTapsPerLane = 2;

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_TUNING_CUH_
