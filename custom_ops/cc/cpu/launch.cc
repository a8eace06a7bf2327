// SPDX-License-Identifier: Apache-2.0
#include "cpu/launch.h"

#include <cstring>

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

size_t workspace_bytes(const Problem& p) {
  if (result_size(p) == 0 || is_empty_sum(p)) return 0;
  if (p.derivative == Derivative::kChannel) return channel_sums(p).bytes;
  // Two accumulators per filter: at most four times the memory of the logits, for windows of one tap in half types.
  if (p.derivative == Derivative::kInputs && p.kind == FilterKind::kSoftmax) {
    return 2 * p.batch * p.out_height * p.out_width * p.heads * accumulator_bytes(p.dtype);
  }
  return 0;
}

void run(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  if (result_size(p) == 0) return;
  if (is_empty_sum(p)) {
    std::memset(b.result, 0, result_size(p) * element_bytes(p.dtype));
    return;
  }
  switch (p.dtype) {
    case DType::kFloat32: return run_type<float>(p, b, parallel_for);
    case DType::kFloat64: return run_type<double>(p, b, parallel_for);
    case DType::kFloat16: return run_type<Float16>(p, b, parallel_for);
    case DType::kBFloat16: return run_type<BFloat16>(p, b, parallel_for);
  }
}

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET
