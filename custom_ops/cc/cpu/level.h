// SPDX-License-Identifier: Apache-2.0
// The kernels are compiled once per instruction set that the library is to serve, each time in a namespace of its own.
#ifndef KERAS_DYNFILTER_CPU_LEVEL_H_
#define KERAS_DYNFILTER_CPU_LEVEL_H_

#ifndef KERAS_DYNFILTER_LEVEL
#define KERAS_DYNFILTER_LEVEL native
#endif

#endif  // KERAS_DYNFILTER_CPU_LEVEL_H_
