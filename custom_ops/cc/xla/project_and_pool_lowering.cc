// SPDX-License-Identifier: Apache-2.0
// Lowers ProjectAndPool to XLA: to a custom call of the CPU kernel or, on other devices and for inexact shapes, to XLA
// operations.
#include <algorithm>
#include <vector>

#include "project_and_pool.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tf/guarded.h"
#include "tf/problem.h"
#include "tf/project_and_pool_shapes.h"
#include "xla/custom_call.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/register_late.h"
#include "xla/shapes.h"

namespace keras_dynfilter {
namespace {

using tensorflow::XlaOpKernelContext;

class ProjectAndPoolXla : public tensorflow::XlaOpKernel {
 public:
  explicit ProjectAndPoolXla(tensorflow::OpKernelConstruction* c)
      : XlaOpKernel(c), on_cpu_(c->device_type() == tensorflow::DeviceType(tensorflow::DEVICE_CPU_XLA_JIT)) {}

  void Compile(XlaOpKernelContext* c) override {
    guarded(c, [&] { compile(c); });
  }

 private:
  void compile(XlaOpKernelContext* c) {
    std::vector<xla::Shape> shapes;
    bool call = on_cpu_;
    for (int i = 0; i < c->num_inputs(); ++i) {
      auto shape = c->InputXlaShape(i);
      OP_REQUIRES_OK(c, shape.status());
      shapes.push_back(row_major(shape->element_type(), shape->dimensions()));
      call = call && shape->is_static();  // the kernel needs exact sizes; XLA may know only bounds
    }
    const auto sizes = [&](int i) { return Shape(shapes[i].dimensions().begin(), shapes[i].dimensions().end()); };
    ProjectionShapes operands{sizes(0), sizes(1), sizes(2)};
    OP_REQUIRES_OK(c, check_projection(&operands));
    call ? by_custom_call(c, shapes) : by_operations(c);
  }

  static void by_custom_call(XlaOpKernelContext* c, const std::vector<xla::Shape>& shapes) {
    const xla::PrimitiveType type = shapes[0].element_type();
    const auto image = shapes[0].dimensions();
    const Projection p{to_dtype(c->input_type(0)), image[0], image[1] * image[2], image[3], shapes[1].dimensions(1)};
    const int64_t bytes = std::max<int64_t>(cpu::workspace_bytes(p), 1);
    const xla::Shape results =
        xla::ShapeUtil::MakeTupleShape({row_major(type, {image[0], image[1], image[2], p.outputs}),
                                        row_major(type, {p.batch, p.channels}), row_major(xla::U8, {bytes})});
    const xla::XlaOp call = xla::CustomCallWithLayout(
        c->builder(), kProjectAndPoolCall, {c->Input(0), c->Input(1), c->Input(2)}, results, shapes, /*opaque=*/"",
        /*has_side_effect=*/false, /*output_operand_aliasing=*/{}, /*literal=*/nullptr,
        xla::CustomCallSchedule::SCHEDULE_NONE, xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    c->SetOutput(0, xla::GetTupleElement(call, 0));
    c->SetOutput(1, xla::GetTupleElement(call, 1));
  }

  static void by_operations(XlaOpKernelContext* c) {
    const auto type = c->InputXlaType("inputs");
    const bool wide = type == xla::F64;
    const xla::PrimitiveType sums = wide ? xla::F64 : xla::F32;
    const xla::XlaOp inputs = c->Input(0), exact = xla::ConvertElementType(inputs, sums);
    const xla::XlaOp product = xla::DotGeneral(inputs, c->Input(1), contraction(), nullptr, sums);
    const xla::XlaOp bias = xla::ConvertElementType(c->Input(2), sums);
    c->SetOutput(0, xla::ConvertElementType(xla::Add(product, bias, {3}), type));

    const auto dtype = wide ? tensorflow::DT_DOUBLE : tensorflow::DT_FLOAT;
    const xla::XlaOp zero = xla::Zero(c->builder(), sums);
    const xla::XlaOp total = xla::Reduce(exact, zero, *c->GetOrCreateAdd(dtype), {1, 2});
    const xla::XlaOp pixels = xla::Mul(xla::GetDimensionSize(inputs, 1), xla::GetDimensionSize(inputs, 2));
    c->SetOutput(1, xla::ConvertElementType(xla::Div(total, xla::ConvertElementType(pixels, sums)), type));
  }

  static xla::DotDimensionNumbers contraction() {
    xla::DotDimensionNumbers numbers;
    numbers.add_lhs_contracting_dimensions(3);
    numbers.add_rhs_contracting_dimensions(0);
    return numbers;
  }

  const bool on_cpu_;
};

constexpr char kName[] = "KerasDynfilter>ProjectAndPool";
[[maybe_unused]] const bool kRegistered = [] {
  if (has_kernel(kName, tensorflow::DEVICE_CPU_XLA_JIT)) return false;
  tensorflow::XlaOpRegistrar(tensorflow::XlaOpRegistrationBuilder::Name(kName).Build(
      [](tensorflow::OpKernelConstruction* c) -> tensorflow::OpKernel* { return new ProjectAndPoolXla(c); }));
  register_late<ProjectAndPoolXla>(kName, true);
  return true;
}();

}  // namespace
}  // namespace keras_dynfilter
