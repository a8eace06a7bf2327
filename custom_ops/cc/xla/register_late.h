// SPDX-License-Identifier: Apache-2.0
// Registers the XLA kernel of an op after TensorFlow has set up XLA. TensorFlow creates kernels from the registered XLA
// ops only once, when XLA is first used. If this library is loaded after that, it has to register its kernels itself.
#ifndef KERAS_DYNFILTER_XLA_REGISTER_LATE_H_
#define KERAS_DYNFILTER_XLA_REGISTER_LATE_H_

#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/registered.h"

namespace keras_dynfilter {

template <typename Kernel>
void register_late(const char* name, bool on_gpus) {
  const tensorflow::OpDef* op = nullptr;
  if (!tensorflow::OpRegistry::Global()->LookUpOpDef(name, &op).ok()) return;  // the ops are not loaded
  tensorflow::XlaOpRegistry::RegisterCompilationKernels();
  for (const char* device : {tensorflow::DEVICE_CPU_XLA_JIT, tensorflow::DEVICE_GPU_XLA_JIT}) {
    if (device == tensorflow::DEVICE_GPU_XLA_JIT && !on_gpus) continue;
    if (has_kernel(name, device)) continue;
    auto* definition = new tensorflow::KernelDef;  // the registrar takes ownership
    definition->set_op(name);
    definition->set_device_type(device);
    tensorflow::kernel_factory::OpKernelRegistrar(
        definition, "XlaJitOp",
        [](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new Kernel(c); });
  }
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_REGISTER_LATE_H_
