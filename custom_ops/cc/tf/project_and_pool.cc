// SPDX-License-Identifier: Apache-2.0
// Defines the TensorFlow op ProjectAndPool: signature, shapes, and the CPU kernel. Python uses the op only if no GPU is
// visible.
#include "project_and_pool.h"

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/guarded.h"
#include "tf/problem.h"
#include "tf/project_and_pool_shapes.h"
#include "tf/registered.h"

namespace keras_dynfilter {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status infer(InferenceContext* c) {
  ShapeHandle inputs, kernel, bias;
  DimensionHandle channels, outputs;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &inputs));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &kernel));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &bias));
  TF_RETURN_IF_ERROR(c->Merge(c->Dim(inputs, 3), c->Dim(kernel, 0), &channels));
  TF_RETURN_IF_ERROR(c->Merge(c->Dim(kernel, 1), c->Dim(bias, 0), &outputs));
  c->set_output(0, c->MakeShape({c->Dim(inputs, 0), c->Dim(inputs, 1), c->Dim(inputs, 2), outputs}));
  c->set_output(1, c->MakeShape({c->Dim(inputs, 0), channels}));
  return absl::OkStatus();
}

constexpr char kName[] = "KerasDynfilter>ProjectAndPool";

REGISTER_OP(kName)
    .Input("inputs: T")
    .Input("kernel: T")
    .Input("bias: T")
    .Output("projected: T")
    .Output("means: T")
    .Attr("T: {half, bfloat16, float, double}")
    .SetShapeFn([](InferenceContext* c) { return guarded([c] { return infer(c); }); })
    .Doc("See keras_dynfilter/ops/pixel_projection.py for the formula and the shapes.");

class ProjectAndPool : public tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* c) override {
    guarded(c, [&] { compute(c); });
  }

 private:
  static void compute(OpKernelContext* c) {
    const Tensor &inputs = c->input(0), &kernel = c->input(1), &bias = c->input(2);
    OP_REQUIRES_OK(c,
                   check_projection(inputs.shape().dim_sizes(), kernel.shape().dim_sizes(), bias.shape().dim_sizes()));
    Projection p{to_dtype(inputs.dtype()), inputs.dim_size(0), 0, inputs.dim_size(3), kernel.dim_size(1)};
    TensorShape projected_shape, means_shape;
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape({p.batch, inputs.dim_size(1), inputs.dim_size(2), p.outputs},
                                                    &projected_shape));
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape({p.batch, p.channels}, &means_shape));
    Tensor *projected = nullptr, *means = nullptr, workspace;
    OP_REQUIRES_OK(c, c->allocate_output(0, projected_shape, &projected));
    OP_REQUIRES_OK(c, c->allocate_output(1, means_shape, &means));
    if (projected->NumElements() == 0 && means->NumElements() == 0) return;
    // The product does not overflow: the batch is not empty, so the number of elements of a tensor contains it.
    p.pixels = inputs.dim_size(1) * inputs.dim_size(2);
    TensorShape bytes;
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape({static_cast<int64_t>(cpu::workspace_bytes(p))}, &bytes));
    OP_REQUIRES_OK(c, c->allocate_temp(tensorflow::DT_UINT8, bytes, &workspace));
    const ProjectionBuffers b{inputs.data(),     kernel.data(), bias.data(),
                              projected->data(), means->data(), workspace.data()};
    const auto& threads = *c->device()->tensorflow_cpu_worker_threads();
    cpu::run(p, b, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
      tensorflow::Shard(threads.num_threads, threads.workers, total, cost, body);
    });
  }
};

[[maybe_unused]] const bool kRegistered = [] {
  if (has_kernel(kName, tensorflow::DEVICE_CPU)) return false;
  tensorflow::kernel_factory::OpKernelRegistrar(
      tensorflow::KernelDefBuilder(kName).Device(tensorflow::DEVICE_CPU).Build(), "ProjectAndPool",
      [](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new ProjectAndPool(c); });
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter
