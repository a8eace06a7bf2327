// SPDX-License-Identifier: Apache-2.0
// Lowers the ops to XLA, for tf.function(jit_compile=True) and Keras's jit_compile.
#include "xla/lowering.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tf/problem.h"
#include "xla/custom_call.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/layout_util.h"
#include "xla/register_late.h"

namespace keras_dynfilter {
namespace {

using tensorflow::XlaOpKernel;
using tensorflow::XlaOpKernelContext;

size_t workspace_bytes(const Problem& problem) {
  size_t bytes = cpu::workspace_bytes(problem);
#ifdef KERAS_DYNFILTER_CUDA
  bytes = std::max(bytes, cuda::workspace_bytes(problem));
#endif
  return bytes;
}

class FilterXla : public XlaOpKernel {
 public:
  explicit FilterXla(tensorflow::OpKernelConstruction* c) : XlaOpKernel(c), spec_(find_spec(type_string())) {
    OP_REQUIRES(c, spec_ != nullptr, absl::InternalError(absl::StrCat("Unknown op ", type_string())));
    OP_REQUIRES_OK(c, read_attributes(c, *spec_, &attributes_));
  }

  void Compile(XlaOpKernelContext* c) override {
    const int first = spec_->member == Member::kInputs ? 1 : 0;
    Shape input_size;
    if (first) OP_REQUIRES_OK(c, c->ConstantInputAsIntVector(0, &input_size));
    std::vector<Shape> shapes;
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> operand_shapes;
    std::optional<xla::XlaOp> batch;  // its size, where only a bound is known
    for (int i = first; i < c->num_inputs(); ++i) {
      auto shape = c->InputXlaShape(i);
      OP_REQUIRES_OK(c, shape.status());
      shapes.emplace_back(shape->dimensions().begin(), shape->dimensions().end());
      for (int64_t axis = 1; axis < shape->dimensions().size(); ++axis) {
        OP_REQUIRES(c, !shape->is_dynamic_dimension(axis),
                    absl::InvalidArgumentError(absl::StrCat("XLA knows only a bound of axis ", axis, " of input ", i,
                                                            ", and the compiled op needs its size; "
                                                            "use keras_dynfilter.implementation(\"composite\")")));
      }
      xla::XlaOp operand = c->Input(i);
      if (shape->dimensions().size() > 0 && shape->is_dynamic_dimension(0)) {
        // Samples are independent: all up to the bound are computed, and the result is cut to size again.
        batch = xla::GetDimensionSize(operand, 0);
        operand = xla::RemoveDynamicDimension(operand, 0);
      }
      operands.push_back(operand);
      operand_shapes.push_back(row_major(shape->element_type(), shapes.back()));
    }
    const xla::PrimitiveType type = operand_shapes[0].element_type();
    Problem problem;
    Shape result;
    OP_REQUIRES_OK(c, make_problem(*spec_, attributes_, to_dtype(type), shapes, input_size, &problem, &result));
    OP_REQUIRES_OK(c, check_size(result));

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

 private:
  static DType to_dtype(xla::PrimitiveType type) {
    switch (type) {
      case xla::F64: return DType::kFloat64;
      case xla::F16: return DType::kFloat16;
      case xla::BF16: return DType::kBFloat16;
      default: return DType::kFloat32;
    }
  }

  const Spec* spec_;
  Attributes attributes_;
};

// Without CUDA kernels there is nothing that XLA could call on a GPU.
#ifdef KERAS_DYNFILTER_CUDA
constexpr bool kOnGpus = true;
#define OP(name) Name("KerasDynfilter>" name)
#else
constexpr bool kOnGpus = false;
#define OP(name) Name("KerasDynfilter>" name).Device(tensorflow::DEVICE_CPU_XLA_JIT)
#endif

REGISTER_XLA_OP(OP("LocalFilter2D"), FilterXla);
REGISTER_XLA_OP(OP("LocalFilter2DGradInputs").CompileTimeConstantInput("input_size"), FilterXla);
REGISTER_XLA_OP(OP("LocalFilter2DGradFilters"), FilterXla);
REGISTER_XLA_OP(OP("SoftmaxLocalFilter2D"), FilterXla);
REGISTER_XLA_OP(OP("SoftmaxLocalFilter2DGradInputs").CompileTimeConstantInput("input_size"), FilterXla);
REGISTER_XLA_OP(OP("SoftmaxLocalFilter2DGradFilters"), FilterXla);
REGISTER_XLA_OP(OP("DynamicDepthwiseConv2D"), FilterXla);
REGISTER_XLA_OP(OP("DynamicDepthwiseConv2DGradInputs").CompileTimeConstantInput("input_size"), FilterXla);
REGISTER_XLA_OP(OP("DynamicDepthwiseConv2DGradFilters"), FilterXla);
REGISTER_XLA_OP(OP("DDF2D"), FilterXla);
REGISTER_XLA_OP(OP("DDF2DGradInputs").CompileTimeConstantInput("input_size"), FilterXla);
REGISTER_XLA_OP(OP("DDF2DGradChannelFilters"), FilterXla);
REGISTER_XLA_OP(OP("DDF2DGradSpatialFilters"), FilterXla);

[[maybe_unused]] const bool kRegistered = [] {
  for (const Spec& spec : kSpecs) register_late<FilterXla>(spec.name, kOnGpus);
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter
