// SPDX-License-Identifier: Apache-2.0
// NormalizeFilters and its gradient under XLA: operations of its own, which it compiles for any device.
#include <limits>
#include <vector>

#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/register_late.h"

namespace keras_dynfilter {
namespace {

using tensorflow::XlaOpKernelContext;
using xla::XlaOp;

class NormalizeFiltersXla : public tensorflow::XlaOpKernel {
 public:
  explicit NormalizeFiltersXla(tensorflow::OpKernelConstruction* c) : XlaOpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("taps", &taps_));
  }

  // Shapes were checked by the shape function, which XLA runs with shapes that are known. The formulas are those of
  // cpu/normalize.cc.
  void Compile(XlaOpKernelContext* c) override {
    const bool gradient = c->num_inputs() == 4, wide = c->input_type(0) == tensorflow::DT_DOUBLE;
    const auto type = c->input_xla_type(0);
    const auto number = [&](double value) { return xla::ConstantR0WithType(c->builder(), type, value); };
    const double tiny = wide ? std::numeric_limits<double>::min() : std::numeric_limits<float>::min();
    const XlaOp gain = c->Input(c->num_inputs() - 2), epsilon = c->Input(c->num_inputs() - 1);
    const XlaOp zero = number(0), one = number(1), others = number(taps_ - 1);
    const std::vector<int64_t> filters{0, 2};  // the axes of a value per filter
    const auto sum = [&](XlaOp values) { return xla::Reduce(values, zero, *c->GetOrCreateAdd(c->input_type(0)), {1}); };
    const auto centred = [&](XlaOp values) {
      const XlaOp differences = xla::Sub(values, xla::SliceInDim(values, 0, 1, 1, 1));
      return xla::Sub(differences, xla::Div(sum(differences), number(taps_)), filters);
    };

    const XlaOp values = centred(c->Input(0));
    const XlaOp variance = xla::Div(sum(xla::Mul(values, values)), others);
    const XlaOp varies = xla::Gt(variance, number(tiny));
    const XlaOp deviation = xla::Sqrt(xla::Select(varies, variance, xla::ScalarLike(variance, 1.0)));
    const XlaOp inverse = xla::Select(varies, xla::Div(one, xla::Add(deviation, epsilon)), xla::ZerosLike(variance));
    const XlaOp factor = xla::Mul(inverse, gain);
    if (!gradient) return c->SetOutput(0, xla::Mul(values, factor, filters));

    const XlaOp grad = centred(c->Input(1)), standard = xla::Mul(values, inverse, filters);
    const XlaOp ratio = xla::Div(xla::Add(one, xla::Div(epsilon, deviation)), others);
    const XlaOp share = xla::Mul(sum(xla::Mul(grad, standard)), ratio);
    c->SetOutput(0, xla::Mul(xla::Sub(grad, xla::Mul(standard, share, filters)), factor, filters));
  }

 private:
  int taps_;
};

constexpr char kForward[] = "KerasDynfilter>NormalizeFilters", kGradient[] = "KerasDynfilter>NormalizeFiltersGrad";
REGISTER_XLA_OP(Name(kForward), NormalizeFiltersXla);
REGISTER_XLA_OP(Name(kGradient), NormalizeFiltersXla);
[[maybe_unused]] const bool kRegistered =
    (register_late<NormalizeFiltersXla>(kForward, true), register_late<NormalizeFiltersXla>(kGradient, true), true);

}  // namespace
}  // namespace keras_dynfilter
