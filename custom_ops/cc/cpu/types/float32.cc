// SPDX-License-Identifier: Apache-2.0
#include "cpu/launch.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

template void run_type<float>(const Problem&, const Buffers&, const ParallelFor&);

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET
