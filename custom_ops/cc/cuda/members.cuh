// SPDX-License-Identifier: Apache-2.0
// Which kernel computes a member of the family on the GPU, for one storage type.
#ifndef KERAS_DYNFILTER_CUDA_MEMBERS_CUH_
#define KERAS_DYNFILTER_CUDA_MEMBERS_CUH_

#include <type_traits>

#include "cuda/apply.cuh"
#include "cuda/channel.cuh"
#include "cuda/filters.cuh"
#include "cuda/spatial.cuh"

namespace keras_dynfilter::cuda {

// True where `width` channels of a head move in one access everywhere.
template <typename T>
bool in_packs_of(int64_t width, const Call& call, const Operands<T>& operands) {
  const auto aligned = [&](const T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % (width * sizeof(T)) == 0;
  };
  return call.geometry.head_channels % width == 0 && aligned(operands.inputs) && aligned(operands.channel) &&
         aligned(operands.grad) && aligned(operands.result);
}

template <typename T, Weight kWeight, Member kMember>
cudaError_t run_member(const Call& call, const Operands<T>& operands) {
  cudaError_t error = cudaSuccess;
  // Sums in registers limit the packs of the gradient by channel filters, the width of an access those of the others.
  constexpr int kWidth = 16 / sizeof(std::conditional_t<kMember == Member::kChannel, Accumulator<T>, T>);
  const bool packs = in_packs_of(kWidth, call, operands);
  if constexpr (kMember == Member::kChannel) {
    return packs ? run_channel<T, kWeight, kWidth>(call, operands) : run_channel<T, kWeight, 1>(call, operands);
  } else {
    if constexpr (kWeight == Weight::kSoftmax && kMember == Member::kInputs) {
      error = run_softmax(call, operands);
      if (error != cudaSuccess) return error;
    }
    if (run_filters<T, kWeight, kMember>(call, operands, &error)) return error;
    if constexpr (kMember == Member::kSpatial) {
      return packs ? run_spatial<T, kWeight, kWidth>(call, operands) : run_spatial<T, kWeight, 1>(call, operands);
    } else {
      constexpr bool kForward = kMember == Member::kOutput;
      return packs ? run_apply<T, kWeight, kForward, kWidth>(call, operands)
                   : run_apply<T, kWeight, kForward, 1>(call, operands);
    }
  }
}

template <typename T, Weight kWeight>
cudaError_t run_weight(const Call& call, const Operands<T>& operands, Member member) {
  constexpr bool kSum = kWeight == Weight::kAdd;
  switch (member) {
    case Member::kOutput: return run_member<T, kWeight, Member::kOutput>(call, operands);
    case Member::kInputs: return run_member<T, kWeight, Member::kInputs>(call, operands);
    case Member::kSpatial:
      if constexpr (kUsesSpatial<kWeight> && !kSum) return run_member<T, kWeight, Member::kSpatial>(call, operands);
      break;
    case Member::kChannel:
      if constexpr (kUsesChannel<kWeight> && !kSum) return run_member<T, kWeight, Member::kChannel>(call, operands);
      break;
  }
  return cudaErrorInvalidValue;
}

template <typename T>
cudaError_t run_type(const Call& call, const Buffers& b, Weight weight, Member member) {
  const Operands<T> operands = {static_cast<const T*>(b.inputs),  static_cast<const T*>(b.spatial),
                                static_cast<const T*>(b.channel), static_cast<const T*>(b.grad),
                                static_cast<T*>(b.result),        b.workspace};
  switch (weight) {
    case Weight::kSpatial: return run_weight<T, Weight::kSpatial>(call, operands, member);
    case Weight::kChannel: return run_weight<T, Weight::kChannel>(call, operands, member);
    case Weight::kMul: return run_weight<T, Weight::kMul>(call, operands, member);
    case Weight::kAdd: return run_weight<T, Weight::kAdd>(call, operands, member);
    case Weight::kSoftmax: return run_weight<T, Weight::kSoftmax>(call, operands, member);
  }
  return cudaErrorInvalidValue;
}

// One a source file, so that they compile side by side.
extern template cudaError_t run_type<float>(const Call&, const Buffers&, Weight, Member);
extern template cudaError_t run_type<double>(const Call&, const Buffers&, Weight, Member);
extern template cudaError_t run_type<__half>(const Call&, const Buffers&, Weight, Member);
extern template cudaError_t run_type<__nv_bfloat16>(const Call&, const Buffers&, Weight, Member);

}  // namespace keras_dynfilter::cuda

#endif  // KERAS_DYNFILTER_CUDA_MEMBERS_CUH_
