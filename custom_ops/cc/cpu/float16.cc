// SPDX-License-Identifier: Apache-2.0
#include "cpu/run.h"

template void keras_dynfilter::cpu::run_type<keras_dynfilter::cpu::Float16>(const Problem&, const Buffers&,
                                                                            const ParallelFor&);
