// SPDX-License-Identifier: Apache-2.0
// The ops NormalizeFilters and NormalizeFiltersGrad, for CPUs: their signatures, their shapes, their kernel. XLA lowers
// them to its own operations, and Python asks for them only where no GPU is used.
#include "normalize.h"

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"
#include "tf/problem.h"

namespace keras_dynfilter {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status check(int taps) {
  if (taps <= kMostTaps) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("Expected taps to be at most ", kMostTaps, ". Received: ", taps));
}

// Inputs: filters, grad if there is one, gain, epsilon.
absl::Status infer(InferenceContext* c) {
  const int arrays = c->num_inputs() - 2;
  int taps;
  ShapeHandle shape, scalar;
  DimensionHandle size;
  TF_RETURN_IF_ERROR(c->GetAttr("taps", &taps));
  TF_RETURN_IF_ERROR(check(taps));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 3, &shape));
  TF_RETURN_IF_ERROR(c->WithValue(c->Dim(shape, 1), taps, &size));
  if (arrays == 2) TF_RETURN_IF_ERROR(c->Merge(shape, c->input(1), &shape));
  for (int i = arrays; i < c->num_inputs(); ++i) TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 0, &scalar));
  c->set_output(0, shape);
  return absl::OkStatus();
}

REGISTER_OP("KerasDynfilter>NormalizeFilters")
    .Input("filters: T")
    .Input("gain: T")
    .Input("epsilon: T")
    .Output("outputs: T")
    .Attr("taps: int >= 2")
    .Attr("T: {float, double}")
    .SetShapeFn(infer)
    .Doc("See keras_dynfilter/ops/_normalize.py for the formula and the shapes.");
REGISTER_OP("KerasDynfilter>NormalizeFiltersGrad")
    .Input("filters: T")
    .Input("grad: T")
    .Input("gain: T")
    .Input("epsilon: T")
    .Output("outputs: T")
    .Attr("taps: int >= 2")
    .Attr("T: {float, double}")
    .SetShapeFn(infer)
    .Doc("See keras_dynfilter/ops/_normalize.py for the formula and the shapes.");

class NormalizeFilters : public tensorflow::OpKernel {
 public:
  explicit NormalizeFilters(tensorflow::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("taps", &taps_));
    OP_REQUIRES_OK(c, check(taps_));
  }

  void Compute(OpKernelContext* c) override {
    const int arrays = c->num_inputs() - 2;
    const Tensor &filters = c->input(0), &grad = c->input(arrays - 1), &gain = c->input(arrays),
                 &epsilon = c->input(arrays + 1);
    const auto received = [&] {
      return absl::StrCat(". Received: filters ", filters.shape().DebugString(),
                          arrays == 2 ? absl::StrCat(", grad ", grad.shape().DebugString()) : "", ", gain ",
                          gain.shape().DebugString(), ", epsilon ", epsilon.shape().DebugString());
    };
    OP_REQUIRES(c, filters.dims() == 3 && filters.dim_size(1) == taps_ && filters.shape() == grad.shape(),
                absl::InvalidArgumentError(absl::StrCat("Expected filters [outer, ", taps_, ", inner]",
                                                        arrays == 2 ? ", and grad of that shape" : "", received())));
    OP_REQUIRES(c, gain.dims() == 0 && epsilon.dims() == 0,
                absl::InvalidArgumentError(absl::StrCat("Expected gain and epsilon to be scalars", received())));
    Tensor* outputs = nullptr;
    OP_REQUIRES_OK(c, c->allocate_output(0, filters.shape(), &outputs));
    const Normalization n{to_dtype(filters.dtype()), filters.dim_size(0), taps_,
                          filters.dim_size(2),       number(gain),        number(epsilon)};
    const NormalizationBuffers b{filters.data(), arrays == 2 ? grad.data() : nullptr, outputs->data()};
    const auto& threads = *c->device()->tensorflow_cpu_worker_threads();
    cpu::run(n, b, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
      tensorflow::Shard(threads.num_threads, threads.workers, total, cost, body);
    });
  }

 private:
  static double number(const Tensor& scalar) {
    return scalar.dtype() == tensorflow::DT_DOUBLE ? scalar.scalar<double>()() : scalar.scalar<float>()();
  }

  int taps_;
};

REGISTER_KERNEL_BUILDER(Name("KerasDynfilter>NormalizeFilters").Device(tensorflow::DEVICE_CPU), NormalizeFilters);
REGISTER_KERNEL_BUILDER(Name("KerasDynfilter>NormalizeFiltersGrad").Device(tensorflow::DEVICE_CPU), NormalizeFilters);

}  // namespace
}  // namespace keras_dynfilter
