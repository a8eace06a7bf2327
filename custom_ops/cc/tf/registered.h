// SPDX-License-Identifier: Apache-2.0
// Keeps a second library of the same ops from registering its kernels again. A process may load two files: of two
// copies of the package, or by two paths. TensorFlow keeps the first definition of an op, but an op with two kernels
// for one device fails in every later graph.
#ifndef KERAS_DYNFILTER_TF_REGISTERED_H_
#define KERAS_DYNFILTER_TF_REGISTERED_H_

#include <string>

#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace keras_dynfilter {

// Returns whether an op has a kernel for a type of device, from this library or another one.
inline bool has_kernel(const std::string& op, const std::string& device) {
  const tensorflow::KernelList registered = tensorflow::GetRegisteredKernelsForOp(op);
  for (const auto& kernel : registered.kernel()) {
    if (kernel.device_type() == device) return true;
  }
  return false;
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_REGISTERED_H_
