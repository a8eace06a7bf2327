// SPDX-License-Identifier: Apache-2.0
#include "cpu/run.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

size_t workspace_bytes(const Problem& p) {
  const size_t accumulator = p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  if (p.member == Member::kChannel) return bands(p) * channel_size(p) * accumulator;
  if (p.member == Member::kInputs && p.weight == Weight::kSoftmax) {
    return 2 * p.batch * p.out_height * p.out_width * p.heads * accumulator;
  }
  return 0;
}

void run(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  if (result_size(p) == 0) return;
  switch (p.dtype) {
    case DType::kFloat32: return run_type<float>(p, b, parallel_for);
    case DType::kFloat64: return run_type<double>(p, b, parallel_for);
    case DType::kFloat16: return run_type<Float16>(p, b, parallel_for);
    case DType::kBFloat16: return run_type<BFloat16>(p, b, parallel_for);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL
