// SPDX-License-Identifier: Apache-2.0
// Lowers the ops of the family to custom calls of XLA, for `jit_compile=True` in tf.function and Keras.
#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tf/guarded.h"
#include "tf/problem.h"
#include "xla/custom_call.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/layout_util.h"
#include "xla/register_late.h"
#include "xla/shapes.h"

namespace keras_dynfilter {
namespace {

using tensorflow::XlaOpKernel;
using tensorflow::XlaOpKernelContext;

// The device is not known here, so the workspace has to be large enough for both the CPU and the GPU.
size_t workspace_bytes(const Problem& problem) {
  size_t bytes = cpu::workspace_bytes(problem);
#ifdef KERAS_DYNFILTER_CUDA
  bytes = std::max(bytes, cuda::workspace_bytes(problem));
#endif
  return bytes;
}

class FilterXla : public XlaOpKernel {
 public:
  explicit FilterXla(tensorflow::OpKernelConstruction* c) : XlaOpKernel(c), op_(find_op(type_string())) {
    guarded(c, [&] {
      OP_REQUIRES(c, op_ != nullptr, absl::InternalError(absl::StrCat("Unknown op ", type_string())));
      OP_REQUIRES_OK(c, read_attributes(c, *op_, &attributes_));
    });
  }

  void Compile(XlaOpKernelContext* c) override {
    guarded(c, [&] { compile(c); });
  }

 private:
  void compile(XlaOpKernelContext* c) {
    const int first = op_->has_input_size() ? 1 : 0;
    Shape input_size;
    if (first) {
      const auto dims = c->InputShape(0).dim_sizes();
      OP_REQUIRES_OK(c, to_status(check_input_size_shape(Shape(dims.begin(), dims.end()))));
      OP_REQUIRES_OK(c, c->ConstantInputAsIntVector(0, &input_size));
    }
    std::vector<Shape> shapes;
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> operand_shapes;
    std::optional<xla::XlaOp> batch;  // the batch size, if XLA knows only a bound of it
    for (int i = first; i < c->num_inputs(); ++i) {
      auto shape = c->InputXlaShape(i);
      OP_REQUIRES_OK(c, shape.status());
      shapes.emplace_back(shape->dimensions().begin(), shape->dimensions().end());
      for (int64_t axis = 1; axis < shape->dimensions().size(); ++axis) {
        OP_REQUIRES(c, !shape->is_dynamic_dimension(axis),
                    absl::InvalidArgumentError(absl::StrCat(
                        "Expected `", op_->operands()[i], "` to have sizes that XLA knows, except for the batch size. ",
                        "Received: only a bound of axis ", axis,
                        ", which keras_dynfilter.implementation(\"composite\") accepts")));
      }
      xla::XlaOp operand = c->Input(i);
      if (shape->dimensions().size() > 0 && shape->is_dynamic_dimension(0)) {
        // Samples are independent, so all samples up to the bound are computed and the result is cut to the real size.
        batch = xla::GetDimensionSize(operand, 0);
        operand = xla::RemoveDynamicDimension(operand, 0);
      }
      operands.push_back(operand);
      operand_shapes.push_back(row_major(shape->element_type(), shapes.back()));
    }
    const xla::PrimitiveType type = operand_shapes[0].element_type();
    Problem problem;
    Shape result;
    OP_REQUIRES_OK(c, make_problem(*op_, attributes_, to_dtype(type), shapes, input_size, &problem, &result));

    xla::Shape shape = row_major(type, result);
    const int64_t bytes = workspace_bytes(problem);
    if (bytes) shape = xla::ShapeUtil::MakeTupleShape({shape, row_major(xla::U8, {bytes})});
    Shape fields(kProblemFields);
    std::memcpy(fields.data(), &problem, sizeof(problem));
    const std::string attributes = absl::StrCat("{", kProblem, " = array<i64: ", absl::StrJoin(fields, ", "), ">}");
    const xla::XlaOp call = xla::CustomCallWithLayout(
        c->builder(), kCustomCall, operands, shape, operand_shapes, attributes, /*has_side_effect=*/false,
        /*output_operand_aliasing=*/{}, /*literal=*/nullptr, xla::CustomCallSchedule::SCHEDULE_NONE,
        xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    xla::XlaOp output = bytes ? xla::GetTupleElement(call, 0) : call;
    if (batch.has_value()) output = xla::SetDimensionSize(output, *batch, 0);
    c->SetOutput(0, output);
  }

  static DType to_dtype(xla::PrimitiveType type) {
    switch (type) {
      case xla::F64: return DType::kFloat64;
      case xla::F16: return DType::kFloat16;
      case xla::BF16: return DType::kBFloat16;
      default: return DType::kFloat32;
    }
  }

  const FamilyOp* op_;
  Attributes attributes_;
};

// Without CUDA kernels, XLA cannot run the ops on a GPU.
#ifdef KERAS_DYNFILTER_CUDA
constexpr bool kOnGpus = true;
#else
constexpr bool kOnGpus = false;
#endif

[[maybe_unused]] const bool kRegistered = [] {
  // TensorFlow ends the process if an op has two lowerings.
  if (has_kernel(kFamilyOps[0].name, tensorflow::DEVICE_CPU_XLA_JIT)) return false;
  for (const FamilyOp& op : kFamilyOps) {
    auto builder = tensorflow::XlaOpRegistrationBuilder::Name(op.name);
    if (!kOnGpus) builder.Device(tensorflow::DEVICE_CPU_XLA_JIT);
    if (op.has_input_size()) builder.CompileTimeConstantInput("input_size");
    tensorflow::XlaOpRegistrar(
        builder.Build([](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new FilterXla(c); }));
  }
  // All ops have to be registered before this loop: it sets up XLA, if that has not happened yet, for the registered
  // ops only.
  for (const FamilyOp& op : kFamilyOps) register_late<FilterXla>(op.name, kOnGpus);
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter
