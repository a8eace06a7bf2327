// SPDX-License-Identifier: Apache-2.0
// The entry points of the CUDA kernels.
#include "cuda/launch.cuh"

namespace keras_dynfilter::cuda {

namespace {

// The largest power of two, at most kVecBytes, that divides the addresses of the operands that are accessed as vectors.
int64_t alignment_of(const Buffers& b) {
  int64_t bits = kVecBytes;
  for (const void* address : {b.inputs, b.channel, b.grad, static_cast<const void*>(b.result)}) {
    bits |= static_cast<int64_t>(reinterpret_cast<uintptr_t>(address));
  }
  return bits & -bits;
}

cudaError_t run_problem(const Problem& p, const Buffers& b, cudaStream_t stream) {
  if (is_empty_sum(p)) return cudaMemsetAsync(b.result, 0, result_size(p) * element_bytes(p.dtype), stream);
  int device, max_blocks, max_shared;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&max_blocks, cudaDevAttrMaxGridDimX, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&max_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  const Choice choice = choose_kernel(p, alignment_of(b), static_cast<size_t>(max_shared));
  const Call call = {geometry_of(p), choice, stream, max_blocks};
  switch (p.dtype) {
    case DType::kFloat32: return run_type<float>(call, b, p.kind, p.derivative);
    case DType::kFloat64: return run_type<double>(call, b, p.kind, p.derivative);
    case DType::kFloat16: return run_type<__half>(call, b, p.kind, p.derivative);
    case DType::kBFloat16: return run_type<__nv_bfloat16>(call, b, p.kind, p.derivative);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

size_t workspace_bytes(const Problem& p) {
  const Geometry geometry = geometry_of(p);
  if (result_size(p) == 0 || is_empty_sum(p)) return 0;
  if (p.derivative == Derivative::kChannel) return partial_sums(geometry) * accumulator_bytes(p.dtype);
  if (p.derivative == Derivative::kInputs && p.kind == FilterKind::kSoftmax) {
    return 2 * geometry.filters() * accumulator_bytes(p.dtype);
  }
  return 0;
}

const char* run(const Problem& p, const Buffers& b, void* stream) {
  if (result_size(p) == 0) return nullptr;
  const cudaError_t error = run_problem(p, b, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace keras_dynfilter::cuda
