// SPDX-License-Identifier: Apache-2.0
// Computes the gradient with respect to the inputs for large strides, where most taps of a window have no output. A
// thread computes one element of the result, and visits only the taps that read it.
#ifndef KERAS_DYNFILTER_CUDA_KERNELS_STRIDED_INPUTS_CUH_
#define KERAS_DYNFILTER_CUDA_KERNELS_STRIDED_INPUTS_CUH_

#include "cuda/kernels/softmax.cuh"
#include "window.h"

namespace keras_dynfilter::cuda {

template <typename T, FilterKind kKind>
__global__ void __launch_bounds__(kThreads)
    strided_inputs_kernel(Geometry geometry, Operands<T> operands, TapSteps row_steps, TapSteps column_steps) {
  using A = Accumulator<T>;
  const Axis &rows = geometry.rows, &columns = geometry.columns;
  const int64_t count = geometry.batch * rows.size * columns.size * geometry.channels;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t element = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; element < count; element += step) {
    int64_t rest = element;
    const int64_t channel = divmod(rest, geometry.channels);
    const Taps column = taps_of_input(columns, column_steps, divmod(rest, columns.size));
    const Taps row = taps_of_input(rows, row_steps, divmod(rest, rows.size));
    const int64_t sample = rest, head = kUsesSpatial<kKind> ? channel / geometry.head_channels : 0;
    A sum = 0;
    for (int64_t a = 0; a < row.count && column.count > 0; ++a) {
      const int64_t output_row = sample * rows.out_size + row.source + a * row.source_step;
      for (int64_t b = 0; b < column.count; ++b) {
        const int64_t pixel = output_row * columns.out_size + column.source + b * column.source_step;
        const int64_t tap = (row.tap + a * row.tap_step) * columns.window + column.tap + b * column.tap_step;
        A spatial = 0, factor = 0;
        if constexpr (kUsesSpatial<kKind>) {
          constexpr bool kNormalize = kKind == FilterKind::kSoftmax;
          const int64_t filter = pixel * geometry.heads + head;
          Softmax<A> softmax = {};
          if constexpr (kNormalize) softmax = static_cast<const Softmax<A>*>(operands.workspace)[filter];
          spatial = filter_value<kNormalize>(operands.spatial + filter * geometry.taps, tap, softmax);
        }
        if constexpr (kUsesChannel<kKind>) {
          factor = widen(operands.channel[(sample * geometry.taps + tap) * geometry.channels + channel]);
        }
        sum += combine<kKind>(spatial, factor) * widen(operands.grad[pixel * geometry.channels + channel]);
      }
    }
    narrow(sum, operands.result + element);
  }
}

template <typename T, FilterKind kKind>
cudaError_t run_strided_inputs(const Call& call, const Operands<T>& operands) {
  const Geometry& geometry = call.geometry;
  const int64_t count = geometry.batch * geometry.rows.size * geometry.columns.size * geometry.channels;
  return launch(call, strided_inputs_kernel<T, kKind>, ceil_div(count, kThreads), dim3(kThreads), 0, geometry, operands,
                tap_steps(geometry.rows), tap_steps(geometry.columns));
}

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_KERNELS_STRIDED_INPUTS_CUH_
