// SPDX-License-Identifier: Apache-2.0
#include "cuda/members.cuh"

namespace keras_dynfilter::cuda {

namespace {

Geometry geometry_of(const Problem& p) {
  const int64_t heads = uses_spatial(p.weight) ? p.heads : 1;
  return {p.batch,
          p.channels,
          heads,
          p.channels / heads,
          taps(p),
          {p.height, p.out_height, p.kernel_h, p.stride_h, p.dilation_h, p.pad_h},
          {p.width, p.out_width, p.kernel_w, p.stride_w, p.dilation_w, p.pad_w}};
}

cudaError_t run_problem(const Problem& p, const Buffers& b, cudaStream_t stream) {
  int device, blocks, shared;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&blocks, cudaDevAttrMaxGridDimX, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  const Call call = {geometry_of(p), stream, blocks, static_cast<size_t>(shared)};
  switch (p.dtype) {
    case DType::kFloat32: return run_type<float>(call, b, p.weight, p.member);
    case DType::kFloat64: return run_type<double>(call, b, p.weight, p.member);
    case DType::kFloat16: return run_type<__half>(call, b, p.weight, p.member);
    case DType::kBFloat16: return run_type<__nv_bfloat16>(call, b, p.weight, p.member);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

size_t workspace_bytes(const Problem& p) {
  const Geometry geometry = geometry_of(p);
  const size_t accumulator = p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  if (result_size(p) == 0) return 0;
  if (p.member == Member::kChannel) return partial_sums(geometry) * accumulator;
  if (p.member == Member::kInputs && p.weight == Weight::kSoftmax) return 2 * geometry.filters() * accumulator;
  return 0;
}

const char* run(const Problem& p, const Buffers& b, void* stream) {
  if (result_size(p) == 0) return nullptr;
  const cudaError_t error = run_problem(p, b, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace keras_dynfilter::cuda
