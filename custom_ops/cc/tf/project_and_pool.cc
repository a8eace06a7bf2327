// SPDX-License-Identifier: Apache-2.0
// Defines the TensorFlow op ProjectAndPool: signature, shapes, and the CPU kernel. Python uses the op only if no GPU is
// visible.
#include "project_and_pool.h"

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/guarded.h"
#include "tf/inferred_shapes.h"
#include "tf/problem.h"
#include "tf/project_and_pool_shapes.h"
#include "tf/registered.h"

namespace keras_dynfilter {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::InferenceContext;

absl::Status infer(InferenceContext* c) {
  ProjectionShapes s{known_sizes(c, c->input(0), 4), known_sizes(c, c->input(1), 2), known_sizes(c, c->input(2), 1)};
  TF_RETURN_IF_ERROR(check_projection(&s));
  c->set_output(0, make_shape(c, s.projected));
  c->set_output(1, make_shape(c, s.means));
  return absl::OkStatus();
}

Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.shape().dim_sizes();
  return Shape(sizes.begin(), sizes.end());
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
    ProjectionShapes s{shape_of(inputs), shape_of(kernel), shape_of(bias)};
    OP_REQUIRES_OK(c, check_projection(&s));
    Projection p{to_dtype(inputs.dtype()), inputs.dim_size(0), 0, inputs.dim_size(3), kernel.dim_size(1)};
    TensorShape projected_shape, means_shape;
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape(s.projected, &projected_shape));
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape(s.means, &means_shape));
    Tensor *projected = nullptr, *means = nullptr, workspace;
    OP_REQUIRES_OK(c, c->allocate_output(0, projected_shape, &projected));
    OP_REQUIRES_OK(c, c->allocate_output(1, means_shape, &means));
    if (projected->NumElements() == 0 && means->NumElements() == 0) return;
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
