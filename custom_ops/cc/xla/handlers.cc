// SPDX-License-Identifier: Apache-2.0
// The handlers of the XLA custom call that runs an op of the family. They run the same kernels as the TensorFlow ops.
#include <cstring>
#include <string>

#include "family.h"
#include "xla/custom_call.h"
#include "xla/handler.h"
#include "xla/thread_pool.h"

namespace keras_dynfilter {
namespace {

ffi::DataType to_data_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return ffi::F64;
    case DType::kFloat16: return ffi::F16;
    case DType::kBFloat16: return ffi::BF16;
    default: return ffi::F32;
  }
}

// Reads the problem and the buffers. Any graph can contain this custom call, so the problem is checked first, and then
// the buffers against the problem.
ffi::Error unpack(ffi::Span<const int64_t> fields, ffi::RemainingArgs args, ffi::RemainingRets rets,
                  size_t (*workspace_bytes)(const Problem&), Problem* p, Buffers* b) {
  if (static_cast<int64_t>(fields.size()) != kProblemFields) {
    return ffi::Error::InvalidArgument("keras_dynfilter: the attribute `problem` has the wrong length");
  }
  std::memcpy(p, fields.begin(), sizeof(Problem));
  if (!valid(*p)) return ffi::Error::InvalidArgument("keras_dynfilter: the attribute `problem` is inconsistent");
  const ffi::DataType type = to_data_type(p->dtype);
  size_t next = 0;
  std::string mismatched;  // the name of a buffer that does not match
  const auto next_operand = [&](const char* name, int64_t size) -> const void* {
    const auto arg = args.get<ffi::AnyBuffer>(next++);
    if (arg.has_value() && arg->element_type() == type && static_cast<int64_t>(arg->element_count()) == size) {
      return arg->untyped_data();
    }
    mismatched = name;
    return nullptr;
  };
  if (reads_inputs(*p)) b->inputs = next_operand("inputs", inputs_size(*p));
  if (reads_channel(*p)) b->channel = next_operand("channel", channel_size(*p));
  if (reads_spatial(*p)) b->spatial = next_operand("spatial", spatial_size(*p));
  if (reads_grad(*p)) b->grad = next_operand("grad", output_size(*p));
  auto result = rets.get<ffi::AnyBuffer>(0);
  if (!result.has_value() || (*result)->element_type() != type ||
      static_cast<int64_t>((*result)->element_count()) != result_size(*p)) {
    mismatched = "result";
  } else {
    b->result = (*result)->untyped_data();
  }
  if (const size_t bytes = workspace_bytes(*p); bytes > 0) {
    auto workspace = rets.get<ffi::AnyBuffer>(1);
    if (!workspace.has_value() || (*workspace)->size_bytes() < bytes) {
      mismatched = "workspace";
    } else {
      b->workspace = (*workspace)->untyped_data();
    }
  }
  if (mismatched.empty()) return ffi::Error::Success();
  return ffi::Error::InvalidArgument("keras_dynfilter: the buffer `" + mismatched + "` does not match the problem");
}

ffi::Error run_on_host(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                       ffi::Span<const int64_t> fields) {
  return guarded([&] {
    Problem p;
    Buffers b;
    if (auto error = unpack(fields, args, rets, cpu::workspace_bytes, &p, &b); error.failure()) return error;
    cpu::run(p, b, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
      parallel_for(pool, total, cost, body);
    });
    return ffi::Error::Success();
  });
}

XLA_FFI_DEFINE_HANDLER(
    kHost, run_on_host,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<ffi::Span<const int64_t>>(kProblem));
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), kCustomCall, "Host", kHost);

#ifdef KERAS_DYNFILTER_CUDA
ffi::Error run_on_cuda(void* stream, ffi::RemainingArgs args, ffi::RemainingRets rets,
                       ffi::Span<const int64_t> fields) {
  return guarded([&] {
    Problem p;
    Buffers b;
    if (auto error = unpack(fields, args, rets, cuda::workspace_bytes, &p, &b); error.failure()) return error;
    const char* message = cuda::run(p, b, stream);
    return message ? ffi::Error::Internal(message) : ffi::Error::Success();
  });
}

XLA_FFI_DEFINE_HANDLER(
    kCuda, run_on_cuda,
    ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().RemainingArgs().RemainingRets().Attr<ffi::Span<const int64_t>>(
        kProblem),
    {ffi::Traits::kCmdBufferCompatible});
XLA_FFI_REGISTER_HANDLER(ffi::GetXlaFfiApi(), kCustomCall, "CUDA", kCuda);
#endif

}  // namespace
}  // namespace keras_dynfilter
