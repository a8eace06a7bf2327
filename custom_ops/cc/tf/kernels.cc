// SPDX-License-Identifier: Apache-2.0
// The TensorFlow kernels of the family: each checks its arguments, allocates the result and runs the computation.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cpu/choose_kernel.h"
#include "tensorflow/core/framework/kernel_def_builder.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/guarded.h"
#include "tf/problem.h"
#include "tf/registered.h"
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
  explicit FilterOp(OpKernelConstruction* c) : OpKernel(c), op_(find_op(type_string())) {
    guarded(c, [&] {
      OP_REQUIRES(c, op_ != nullptr, absl::InternalError(absl::StrCat("Unknown op ", type_string())));
      OP_REQUIRES_OK(c, read_attributes(c, *op_, &attributes_));
    });
  }

  void Compute(OpKernelContext* c) override {
    guarded(c, [&] { compute(c); });
  }

 protected:
  virtual size_t workspace_bytes(const Problem& problem) const = 0;
  virtual void run(OpKernelContext* c, const Problem& problem, const Buffers& buffers) = 0;

 private:
  void compute(OpKernelContext* c) {
    const int first = op_->has_input_size() ? 1 : 0;
    Shape input_size;
    if (first) {
      const Tensor& size = c->input(0);
      const auto dims = size.shape().dim_sizes();
      OP_REQUIRES_OK(c, to_status(check_input_size_shape(Shape(dims.begin(), dims.end()))));
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
    OP_REQUIRES_OK(c, make_problem(*op_, attributes_, dtype, shapes, input_size, &problem, &result));
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

  const FamilyOp* op_;
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

template <typename Kernel>
void register_kernel(const FamilyOp& op, const char* device) {
  if (has_kernel(op.name, device)) return;
  tensorflow::KernelDefBuilder builder(op.name);
  builder.Device(device);
  if (op.has_input_size()) builder.HostMemory("input_size");
  // The registrar takes ownership of the definition.
  tensorflow::kernel_factory::OpKernelRegistrar(builder.Build(), "FilterOp",
                                                [](OpKernelConstruction* c) -> OpKernel* { return new Kernel(c); });
}

[[maybe_unused]] const bool kRegistered = [] {
  for (const FamilyOp& op : kFamilyOps) {
    register_kernel<FilterOpCpu>(op, tensorflow::DEVICE_CPU);
#ifdef KERAS_DYNFILTER_CUDA
    register_kernel<FilterOpCuda>(op, tensorflow::DEVICE_GPU);
#endif
  }
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter

// For tests, which call it by ctypes: returns the name of the CPU kernel that computes a problem with vectors of
// `lanes` accumulators. Sets `streams` to 1 if aligned results bypass the caches, else to 0.
extern "C" __attribute__((visibility("default"))) const char* keras_dynfilter_choose_cpu_kernel(const int64_t* problem,
                                                                                                int64_t lanes,
                                                                                                int* streams) {
  keras_dynfilter::Problem p;
  std::memcpy(&p, problem, sizeof(p));
  const auto choice = keras_dynfilter::cpu::choose_kernel(p, lanes);
  *streams = choice.streams;
  return keras_dynfilter::cpu::kernel_name(choice.kernel);
}
