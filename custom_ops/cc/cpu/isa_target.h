// SPDX-License-Identifier: Apache-2.0
// The namespace of the CPU kernels. They are compiled once per instruction set, each time in a separate namespace.
#ifndef KERAS_DYNFILTER_CPU_ISA_TARGET_H_
#define KERAS_DYNFILTER_CPU_ISA_TARGET_H_

#ifndef KERAS_DYNFILTER_ISA_TARGET
#define KERAS_DYNFILTER_ISA_TARGET native
#endif

#endif  // KERAS_DYNFILTER_CPU_ISA_TARGET_H_
