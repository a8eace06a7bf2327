// SPDX-License-Identifier: Apache-2.0
// The storage types of half precision.
#ifndef KERAS_DYNFILTER_CPU_TYPES_HALF_H_
#define KERAS_DYNFILTER_CPU_TYPES_HALF_H_

#include <cstdint>

#include "cpu/isa_target.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_TYPES_HALF_H_
