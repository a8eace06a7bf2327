// SPDX-License-Identifier: Apache-2.0
// Runs the chosen kernel on the GPU, for one storage type.
#ifndef KERAS_DYNFILTER_CUDA_LAUNCH_CUH_
#define KERAS_DYNFILTER_CUDA_LAUNCH_CUH_

#include "cuda/kernels/channel_gradient.cuh"
#include "cuda/kernels/filter_per_thread.cuh"
#include "cuda/kernels/gather.cuh"
#include "cuda/kernels/spatial_gradient.cuh"
#include "cuda/kernels/strided_inputs.cuh"

namespace keras_dynfilter::cuda {

template <typename T, FilterKind kKind, Derivative kDerivative>
cudaError_t run_derivative(const Call& call, const Operands<T>& operands) {
  constexpr bool kForward = kDerivative == Derivative::kOutput;
  constexpr int kVecElems = max_vec_elems(sizeof(T), kDerivative);
  const bool wide = call.choice.vec_elems == kVecElems;
  if constexpr (kKind == FilterKind::kSoftmax && kDerivative == Derivative::kInputs) {
    const cudaError_t error = run_softmax(call, operands);
    if (error != cudaSuccess) return error;
  }
  if constexpr (kDerivative == Derivative::kInputs) {
    if (call.choice.kernel == Kernel::kStridedInputs) return run_strided_inputs<T, kKind>(call, operands);
  }
  if constexpr (kDerivative == Derivative::kChannel) {
    return wide ? run_channel<T, kKind, kVecElems>(call, operands) : run_channel<T, kKind, 1>(call, operands);
  } else {
    if constexpr (kUsesSpatial<kKind>) {
      if (call.choice.kernel == Kernel::kFilterPerThread) {
        return run_filter_per_thread<T, kKind, kDerivative>(call, operands);
      }
    }
    if constexpr (kDerivative == Derivative::kSpatial) {
      return wide ? run_spatial<T, kKind, kVecElems>(call, operands) : run_spatial<T, kKind, 1>(call, operands);
    } else {
      return wide ? run_gather<T, kKind, kForward, kVecElems>(call, operands)
                  : run_gather<T, kKind, kForward, 1>(call, operands);
    }
  }
}

template <typename T, FilterKind kKind>
cudaError_t run_kind(const Call& call, const Operands<T>& operands, Derivative derivative) {
  constexpr bool kSum = kKind == FilterKind::kAdd;  // callers use other kinds; see cpu::run
  switch (derivative) {
    case Derivative::kOutput: return run_derivative<T, kKind, Derivative::kOutput>(call, operands);
    case Derivative::kInputs: return run_derivative<T, kKind, Derivative::kInputs>(call, operands);
    case Derivative::kSpatial:
      if constexpr (kUsesSpatial<kKind> && !kSum) {
        return run_derivative<T, kKind, Derivative::kSpatial>(call, operands);
      }
      break;
    case Derivative::kChannel:
      if constexpr (kUsesChannel<kKind> && !kSum) {
        return run_derivative<T, kKind, Derivative::kChannel>(call, operands);
      }
      break;
  }
  return cudaErrorInvalidValue;
}

template <typename T>
cudaError_t run_type(const Call& call, const Buffers& b, FilterKind kind, Derivative derivative) {
  const Operands<T> operands = {static_cast<const T*>(b.inputs),  static_cast<const T*>(b.spatial),
                                static_cast<const T*>(b.channel), static_cast<const T*>(b.grad),
                                static_cast<T*>(b.result),        b.workspace};
  switch (kind) {
    case FilterKind::kSpatial: return run_kind<T, FilterKind::kSpatial>(call, operands, derivative);
    case FilterKind::kChannel: return run_kind<T, FilterKind::kChannel>(call, operands, derivative);
    case FilterKind::kMul: return run_kind<T, FilterKind::kMul>(call, operands, derivative);
    case FilterKind::kAdd: return run_kind<T, FilterKind::kAdd>(call, operands, derivative);
    case FilterKind::kSoftmax: return run_kind<T, FilterKind::kSoftmax>(call, operands, derivative);
  }
  return cudaErrorInvalidValue;
}

// Each type has its own source file, so that the types compile in parallel.
extern template cudaError_t run_type<float>(const Call&, const Buffers&, FilterKind, Derivative);
extern template cudaError_t run_type<double>(const Call&, const Buffers&, FilterKind, Derivative);
extern template cudaError_t run_type<__half>(const Call&, const Buffers&, FilterKind, Derivative);
extern template cudaError_t run_type<__nv_bfloat16>(const Call&, const Buffers&, FilterKind, Derivative);

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_LAUNCH_CUH_
