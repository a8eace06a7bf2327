// SPDX-License-Identifier: Apache-2.0
#include "cpu/launch.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

size_t workspace_bytes(const Problem& p) {
  if (p.derivative == Derivative::kChannel) return bands(p) * channel_size(p) * accumulator_bytes(p.dtype);
  if (p.derivative == Derivative::kInputs && p.kind == FilterKind::kSoftmax) {
    return 2 * p.batch * p.out_height * p.out_width * p.heads * accumulator_bytes(p.dtype);
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

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET
