// SPDX-License-Identifier: Apache-2.0
// A few neighbouring taps of a window, which the gradients by the filters add up at the same time.
#ifndef KERAS_DYNFILTER_CUDA_TAP_TILE_CUH_
#define KERAS_DYNFILTER_CUDA_TAP_TILE_CUH_

#include "cuda/device.cuh"

namespace keras_dynfilter::cuda {

inline constexpr int kTapTile = 9;       // a 3 x 3 window in one go
inline constexpr int kTapsInFlight = 3;  // whose loads are under way before the first product

// Finds the input pixels under the taps from `first` on, of the output at (`row`, `column`): their positions in the
// image in row-major order, or -1 for taps outside. `kWindow` is 3 for 3 x 3 windows and 0 for others.
template <int kWindow>
__device__ inline void find_pixels(const Geometry& geometry, int64_t row, int64_t column, int64_t first,
                                   int64_t (&pixels)[kTapTile]) {
  static_assert(kWindow == 0 || kWindow * kWindow == kTapTile);
  int64_t u = kWindow ? 0 : first / geometry.columns.window;
  int64_t v = kWindow ? 0 : first % geometry.columns.window;
#pragma unroll
  for (int k = 0; k < kTapTile; ++k) {
    if (kWindow) {
      u = k / most(kWindow, 1);
      v = k % most(kWindow, 1);
    }
    int64_t y, x;
    const bool inside = (kWindow || first + k < geometry.taps) && find_source<true>(geometry.rows, row, u, &y) &&
                        find_source<true>(geometry.columns, column, v, &x);
    pixels[k] = inside ? y * geometry.columns.inputs + x : -1;
    if (!kWindow && ++v == geometry.columns.window) {
      v = 0;
      ++u;
    }
  }
}

inline int64_t tap_tiles(const Geometry& geometry) { return ceil_div(geometry.taps, kTapTile); }

inline bool is_3x3(const Geometry& geometry) { return geometry.rows.window == 3 && geometry.columns.window == 3; }

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_TAP_TILE_CUH_
