// SPDX-License-Identifier: Apache-2.0
// The handler of the XLA custom call that runs ProjectAndPool on the CPU. It runs the same kernel as the TensorFlow op.
#include <string>

#include "project_and_pool.h"
#include "xla/custom_call.h"
#include "xla/handler.h"
#include "xla/thread_pool.h"

namespace keras_dynfilter {
namespace {

bool find_dtype(ffi::DataType type, DType* dtype) {
  switch (type) {
    case ffi::F64: *dtype = DType::kFloat64; return true;
    case ffi::F32: *dtype = DType::kFloat32; return true;
    case ffi::F16: *dtype = DType::kFloat16; return true;
    case ffi::BF16: *dtype = DType::kBFloat16; return true;
    default: return false;
  }
}

// Any graph can contain this custom call, so the shapes and types of the buffers are checked against each other.
ffi::Error project(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer kernel, ffi::AnyBuffer bias,
                   ffi::Result<ffi::AnyBuffer> projected, ffi::Result<ffi::AnyBuffer> means,
                   ffi::Result<ffi::AnyBuffer> workspace) {
  const auto refuse = [](const char* reason) {
    return ffi::Error::InvalidArgument(std::string("keras_dynfilter_project_and_pool: ") + reason);
  };
  const auto image = inputs.dimensions(), columns = kernel.dimensions();
  if (image.size() != 4 || columns.size() != 2) return refuse("expected an image and a matrix");
  Projection p{DType::kFloat32, image[0], 0, image[3], columns[1]};
  // The buffers do not bound all products of sizes: a size of zero lets the other sizes be anything.
  if (!is_bounded(image) || !is_bounded(columns) ||
      !is_bounded(std::initializer_list<int64_t>{image[0], image[1], image[2], columns[1]})) {
    return refuse("the sizes are too large");
  }
  p.pixels = image[1] * image[2];
  if (is_empty(p)) return ffi::Error::Success();
  const auto type = inputs.element_type();
  if (!find_dtype(type, &p.dtype) || kernel.element_type() != type || bias.element_type() != type ||
      projected->element_type() != type || means->element_type() != type) {
    return refuse("expected one floating-point type");
  }
  const auto size = [](const ffi::AnyBuffer& buffer) { return static_cast<int64_t>(buffer.element_count()); };
  if (columns[0] != p.channels || size(bias) != p.outputs || size(*means) != p.batch * p.channels ||
      size(*projected) != p.batch * p.pixels * p.outputs) {
    return refuse("the shapes are inconsistent");
  }
  if (workspace->size_bytes() < cpu::workspace_bytes(p)) return refuse("the workspace is too small");
  const ProjectionBuffers b{inputs.untyped_data(),     kernel.untyped_data(), bias.untyped_data(),
                            projected->untyped_data(), means->untyped_data(), workspace->untyped_data()};
  cpu::run(p, b, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    parallel_for(pool, total, cost, body);
  });
  return ffi::Error::Success();
}

ffi::Error project_on_host(ffi::ThreadPool pool, ffi::AnyBuffer inputs, ffi::AnyBuffer kernel, ffi::AnyBuffer bias,
                           ffi::Result<ffi::AnyBuffer> projected, ffi::Result<ffi::AnyBuffer> means,
                           ffi::Result<ffi::AnyBuffer> workspace) {
  return guarded([&] { return project(pool, inputs, kernel, bias, projected, means, workspace); });
}

XLA_FFI_DEFINE_HANDLER(kProjectOnHost, project_on_host,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>());
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), kProjectAndPoolCall, "Host", kProjectOnHost);

}  // namespace
}  // namespace keras_dynfilter
