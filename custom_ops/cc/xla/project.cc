// SPDX-License-Identifier: Apache-2.0
// ProjectAndPool under XLA: operations of its own, which it compiles for any device.
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/register_late.h"

namespace keras_dynfilter {
namespace {

using tensorflow::XlaOpKernelContext;

class ProjectAndPoolXla : public tensorflow::XlaOpKernel {
 public:
  using XlaOpKernel::XlaOpKernel;

  // Ranks and shapes were checked by the shape function, which XLA runs with shapes that are known.
  void Compile(XlaOpKernelContext* c) override {
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

 private:
  static xla::DotDimensionNumbers contraction() {
    xla::DotDimensionNumbers numbers;
    numbers.add_lhs_contracting_dimensions(3);
    numbers.add_rhs_contracting_dimensions(0);
    return numbers;
  }
};

constexpr char kName[] = "KerasDynfilter>ProjectAndPool";
REGISTER_XLA_OP(Name(kName), ProjectAndPoolXla);
[[maybe_unused]] const bool kRegistered = (register_late<ProjectAndPoolXla>(kName, true), true);

}  // namespace
}  // namespace keras_dynfilter
