// SPDX-License-Identifier: Apache-2.0
// The ops' kernels: check, allocate, run.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/problem.h"
#ifdef KERAS_DYNFILTER_CUDA
#include "xla/stream_executor/stream.h"
#endif

namespace keras_dynfilter {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

class FilterOp : public OpKernel {
 public:
  explicit FilterOp(OpKernelConstruction* c) : OpKernel(c), spec_(find_spec(type_string())) {
    OP_REQUIRES(c, spec_ != nullptr, absl::InternalError(absl::StrCat("Unknown op ", type_string())));
    OP_REQUIRES_OK(c, read_attributes(c, *spec_, &attributes_));
  }

  void Compute(OpKernelContext* c) override {
    const int first = spec_->member == Member::kInputs ? 1 : 0;
    Shape input_size;
    if (first) {
      const Tensor& size = c->input(0);
      OP_REQUIRES(c, size.dims() == 1,
                  absl::InvalidArgumentError(
                      absl::StrCat("Expected input_size to have rank 1. Received shape ", size.shape().DebugString())));
      const auto values = size.flat<int64_t>();
      input_size.assign(values.data(), values.data() + values.size());
    }
    std::vector<Shape> shapes;
    for (int i = first; i < c->num_inputs(); ++i) {
      const auto dims = c->input(i).shape().dim_sizes();
      shapes.emplace_back(dims.begin(), dims.end());
    }
    Problem problem;
    Shape result;
    const DType dtype = to_dtype(c->input(first).dtype());
    OP_REQUIRES_OK(c, make_problem(*spec_, attributes_, dtype, shapes, input_size, &problem, &result));
    TensorShape shape;
    OP_REQUIRES_OK(c, TensorShape::BuildTensorShape(result, &shape));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(c, c->allocate_output(0, shape, &output));
    if (output->NumElements() == 0) return;

    Tensor workspace;
    if (const size_t bytes = workspace_bytes(problem)) {
      TensorShape size;
      OP_REQUIRES_OK(c, TensorShape::BuildTensorShape({static_cast<int64_t>(bytes)}, &size));
      OP_REQUIRES_OK(c, c->allocate_temp(tensorflow::DT_UINT8, size, &workspace));
    }
    Buffers b;
    int next = first;
    if (reads_inputs(problem)) b.inputs = c->input(next++).data();
    if (reads_channel(problem)) b.channel = c->input(next++).data();
    if (reads_spatial(problem)) b.spatial = c->input(next++).data();
    if (reads_grad(problem)) b.grad = c->input(next++).data();
    b.result = output->data();
    b.workspace = workspace.NumElements() ? workspace.data() : nullptr;
    run(c, problem, b);
  }

 protected:
  virtual size_t workspace_bytes(const Problem& problem) const = 0;
  virtual void run(OpKernelContext* c, const Problem& problem, const Buffers& buffers) = 0;

 private:
  const Spec* spec_;
  Attributes attributes_;
};

class FilterOpCpu : public FilterOp {
 public:
  using FilterOp::FilterOp;

 protected:
  size_t workspace_bytes(const Problem& problem) const override { return cpu::workspace_bytes(problem); }
  void run(OpKernelContext* c, const Problem& problem, const Buffers& buffers) override {
    const auto& threads = *c->device()->tensorflow_cpu_worker_threads();
    cpu::run(problem, buffers, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
      tensorflow::Shard(threads.num_threads, threads.workers, total, cost, body);
    });
  }
};

#ifdef KERAS_DYNFILTER_CUDA
class FilterOpCuda : public FilterOp {
 public:
  using FilterOp::FilterOp;

 protected:
  size_t workspace_bytes(const Problem& problem) const override { return cuda::workspace_bytes(problem); }
  void run(OpKernelContext* c, const Problem& problem, const Buffers& buffers) override {
    auto* device = c->op_device_context();
    auto* stream = device ? device->stream() : nullptr;
    OP_REQUIRES(c, stream != nullptr, absl::InternalError("The op runs on a GPU device without a stream"));
    const char* error = cuda::run(problem, buffers, stream->platform_specific_handle().stream);
    OP_REQUIRES(c, error == nullptr, absl::InternalError(absl::StrCat(type_string(), ": CUDA: ", error)));
  }
};
#endif

// One registration per spec; REGISTER_KERNEL_BUILDER needs a literal, so they are listed.
#define REGISTER_CPU(name) \
  REGISTER_KERNEL_BUILDER(Name("KerasDynfilter>" name).Device(tensorflow::DEVICE_CPU), FilterOpCpu)
#ifdef KERAS_DYNFILTER_CUDA
#define REGISTER_CUDA(name) \
  REGISTER_KERNEL_BUILDER(Name("KerasDynfilter>" name).Device(tensorflow::DEVICE_GPU), FilterOpCuda)
#define REGISTER_CUDA_GRAD_INPUTS(name)                                                                         \
  REGISTER_KERNEL_BUILDER(Name("KerasDynfilter>" name).Device(tensorflow::DEVICE_GPU).HostMemory("input_size"), \
                          FilterOpCuda)
#else
#define REGISTER_CUDA(name) static_assert(true)
#define REGISTER_CUDA_GRAD_INPUTS(name) static_assert(true)
#endif
#define REGISTER(name) \
  REGISTER_CPU(name);  \
  REGISTER_CUDA(name)
#define REGISTER_GRAD_INPUTS(name) \
  REGISTER_CPU(name);              \
  REGISTER_CUDA_GRAD_INPUTS(name)

REGISTER("LocalFilter2D");
REGISTER_GRAD_INPUTS("LocalFilter2DGradInputs");
REGISTER("LocalFilter2DGradFilters");
REGISTER("SoftmaxLocalFilter2D");
REGISTER_GRAD_INPUTS("SoftmaxLocalFilter2DGradInputs");
REGISTER("SoftmaxLocalFilter2DGradFilters");
REGISTER("DynamicDepthwiseConv2D");
REGISTER_GRAD_INPUTS("DynamicDepthwiseConv2DGradInputs");
REGISTER("DynamicDepthwiseConv2DGradFilters");
REGISTER("DDF2D");
REGISTER_GRAD_INPUTS("DDF2DGradInputs");
REGISTER("DDF2DGradChannelFilters");
REGISTER("DDF2DGradSpatialFilters");

}  // namespace
}  // namespace keras_dynfilter

// For Python: which devices the library has kernels for.
extern "C" __attribute__((visibility("default"))) int keras_dynfilter_has_cuda() {
#ifdef KERAS_DYNFILTER_CUDA
  return 1;
#else
  return 0;
#endif
}
