// SPDX-License-Identifier: Apache-2.0
// Storage types of half precision and the type in which sums over them are accumulated.
#ifndef KERAS_DYNFILTER_CPU_SCALAR_H_
#define KERAS_DYNFILTER_CPU_SCALAR_H_

#include <cstdint>

#include "cpu/level.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL

#endif  // KERAS_DYNFILTER_CPU_SCALAR_H_
