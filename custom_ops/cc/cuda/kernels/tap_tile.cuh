// SPDX-License-Identifier: Apache-2.0
// A tile of neighbouring taps of a window. The gradients with respect to the filters sum the taps of a tile together.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_TAP_TILE_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_TAP_TILE_CUH_

#include "cuda/device.cuh"

namespace keras_dynfilter::cuda {

// Finds the input pixels at the taps `first`, `first + 1`, ... of the output at (`row`, `column`). `pixels` are
// row-major positions in the image, or -1 for taps outside the image. `kWindowCols` is 3 for 3x3 windows and 0 for
// other windows.
template <int kWindowCols>
__device__ inline void find_pixels(const Geometry& geometry, int64_t row, int64_t column, int64_t first,
                                   int64_t (&pixels)[kTapTile]) {
  static_assert(kWindowCols == 0 || kWindowCols * kWindowCols == kTapTile);
  int64_t u = kWindowCols ? 0 : first / geometry.columns.window;
  int64_t v = kWindowCols ? 0 : first % geometry.columns.window;
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) {
    if (kWindowCols) {
      u = k / max(kWindowCols, 1);
      v = k % max(kWindowCols, 1);
    }
    int64_t y, x;
    const bool inside = (kWindowCols || first + k < geometry.taps) && find_source<true>(geometry.rows, row, u, &y) &&
                        find_source<true>(geometry.columns, column, v, &x);
    pixels[k] = inside ? y * geometry.columns.size + x : -1;
    if (!kWindowCols && ++v == geometry.columns.window) {
      v = 0;
      ++u;
    }
  }
}

// Whether any output has an input at one of the taps `first`, `first + 1`, ... of a tile.
template <int kWindowCols>
__device__ inline bool is_used(const Geometry& geometry, int64_t first) {
  if (kWindowCols) return true;  // the tile contains the centre of the window
  int64_t u = first / geometry.columns.window, v = first % geometry.columns.window;
  for (int k = 0; k < kTapTile && first + k < geometry.taps; ++k) {
    const Range &rows = geometry.tap_rows, &columns = geometry.tap_columns;
    if (u >= rows.begin && u < rows.end && v >= columns.begin && v < columns.end) return true;
    if (++v == geometry.columns.window) {
      v = 0;
      ++u;
    }
  }
  return false;
}

inline int64_t count_tap_tiles(const Geometry& geometry) { return ceil_div(geometry.taps, kTapTile); }

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_TAP_TILE_CUH_
