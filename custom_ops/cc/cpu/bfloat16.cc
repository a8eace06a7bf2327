// SPDX-License-Identifier: Apache-2.0
#include "cpu/run.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

template void run_type<BFloat16>(const Problem&, const Buffers&, const ParallelFor&);

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL
