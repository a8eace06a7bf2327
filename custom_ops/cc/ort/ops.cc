// SPDX-License-Identifier: Apache-2.0
// The forward ops of the family as custom ops of ONNX Runtime: each checks its arguments, allocates the result and runs
// the same kernels as the TensorFlow op.
//
// The domain is keras_dynfilter, version 1. The ops have the same inputs and attributes as the TensorFlow ops, and
// every attribute is required. The same ops are also in the domains keras_dynfilter.2, .3, ...: an ONNX file can define
// one function body per domain and op, so a model that uses an op in several configurations needs one domain per
// configuration.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#define ORT_API_MANUAL_INIT
#include "onnxruntime_cxx_api.h"
#undef ORT_API_MANUAL_INIT
#include "arguments.h"
#include "exceptions.h"

namespace keras_dynfilter {
namespace {

constexpr char kDomain[] = "keras_dynfilter", kTensorFlowPrefix[] = "KerasDynfilter>";
constexpr int kDomains = 32;  // the ONNX exporter uses at most this number of domains
// The oldest API version that has all functions used here. A library built with newer headers still runs in a runtime
// of this version.
constexpr uint32_t kApiVersion = 18;

struct Type {
  DType dtype;
  ONNXTensorElementDataType onnx;
};
constexpr Type kTypes[] = {{DType::kFloat32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
                           {DType::kFloat64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
                           {DType::kFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
                           {DType::kBFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16}};

void require(const Error& error) {
  if (!error.empty()) throw Ort::Exception("keras_dynfilter: " + error, ORT_INVALID_ARGUMENT);
}

// Runs `body` and turns exceptions into statuses. ONNX Runtime has no error code for memory.
template <typename Body>
OrtStatusPtr guarded(const Body& body) {
  const auto run = [&]() -> OrtStatusPtr {
    try {
      body();
      return nullptr;
    } catch (const Ort::Exception& e) {
      return Ort::GetApi().CreateStatus(e.GetOrtErrorCode(), e.what());
    }
  };
  return catch_exceptions(run, [](bool, const char* text) { return Ort::GetApi().CreateStatus(ORT_FAIL, text); });
}

template <typename T>
T attribute(const Ort::ConstKernelInfo& info, const char* name) {
  try {
    return info.GetAttribute<T>(name);
  } catch (const Ort::Exception& e) {
    throw Ort::Exception(message("keras_dynfilter: Attribute ", name, ": ", e.what()), e.GetOrtErrorCode());
  }
}

// Returns whether an attribute has the second of its two possible values.
bool is_second(const Ort::ConstKernelInfo& info, const char* name, const char* first, const char* second) {
  bool result = false;
  require(read_choice(name, attribute<std::string>(info, name), first, second, &result));
  return result;
}

Attributes read_attributes(const Ort::ConstKernelInfo& info, const FamilyOp& op) {
  Attributes a;
  for (auto [name, field] : a.numbers(op)) *field = attribute<int64_t>(info, name);
  a.same = !is_second(info, "padding", "same", "valid");
  if (op.has_combine()) a.add = is_second(info, "combine", "mul", "add");
  require(a.check());
  return a;
}

// Runs ranges on the threads of the session. The API does not expose the number of threads, so there are up to four
// ranges per processor.
void parallel_for(const Ort::KernelContext& context, int64_t total, int64_t cost,
                  const std::function<void(int64_t, int64_t)>& body) {
  const int64_t max_ranges = 4 * std::max<int64_t>(1, std::thread::hardware_concurrency());
  const int64_t ranges = range_count(total, cost, max_ranges);
  if (ranges <= 1) return body(0, total);
  struct Work {
    int64_t total, ranges;
    const std::function<void(int64_t, int64_t)>& body;
  } work{total, ranges, body};
  const auto run = [](void* data, size_t index) {
    const auto& w = *static_cast<Work*>(data);
    const Range range = nth_range(w.total, static_cast<int64_t>(index), w.ranges);
    w.body(range.begin, range.end);
  };
  context.ParallelFor(run, ranges, 0, &work);
}

class FilterKernel {
 public:
  FilterKernel(const FamilyOp& op, DType dtype, bool on_cuda, const OrtKernelInfo* info)
      : op_(op), dtype_(dtype), on_cuda_(on_cuda), attributes_(read_attributes(Ort::ConstKernelInfo(info), op)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    return guarded([&] { compute(Ort::KernelContext(raw)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    std::vector<Shape> shapes;
    for (size_t i = 0; i < context.GetInputCount(); ++i) {
      shapes.push_back(context.GetInput(i).GetTensorTypeAndShapeInfo().GetShape());
    }
    Problem problem;
    Shape result;
    require(fill_problem(op_, attributes_, dtype_, shapes, {}, &problem, &result));
    Ort::UnownedValue output = context.GetOutput(0, result);
    if (result_size(problem) == 0) return;

    Buffers b;
    size_t next = 0;
    if (reads_inputs(problem)) b.inputs = context.GetInput(next++).GetTensorRawData();
    if (reads_channel(problem)) b.channel = context.GetInput(next++).GetTensorRawData();
    if (reads_spatial(problem)) b.spatial = context.GetInput(next++).GetTensorRawData();
    // Forward ops need no workspace.
    b.result = output.GetTensorMutableRawData();
    run(context, problem, b);
  }

  void run(const Ort::KernelContext& context, const Problem& problem, const Buffers& buffers) const {
#ifdef KERAS_DYNFILTER_CUDA
    if (on_cuda_) {
      const char* error = cuda::run(problem, buffers, context.GetGPUComputeStream());
      if (error) throw Ort::Exception(message("keras_dynfilter: CUDA: ", error), ORT_FAIL);
      return;
    }
#endif
    cpu::run(problem, buffers, [&](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
      parallel_for(context, total, cost, body);
    });
  }

  const FamilyOp& op_;
  DType dtype_;
  [[maybe_unused]] bool on_cuda_;
  Attributes attributes_;
};

// One op of the family for one type and one execution provider. ONNX Runtime selects among ops with the same name by
// the type of the inputs.
struct FilterOp : Ort::CustomOpBase<FilterOp, FilterKernel, true> {
  FilterOp(const FamilyOp& op, Type type, bool on_cuda)
      : op(op), type(type), on_cuda(on_cuda), operands(op.operands().size()) {
    OrtCustomOp::version = kApiVersion;
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* raw) -> OrtStatusPtr {
      // Errors are ignored here. The constructor of the kernel reports them, and names the argument.
      OrtStatusPtr status = guarded([&] { static_cast<const FilterOp*>(op)->infer(raw); });
      if (status != nullptr) Ort::GetApi().ReleaseStatus(status);
      return nullptr;
    };
  }

  // Infers the shape of the result from the shape of an input, if possible, including the names of unknown sizes.
  void infer(OrtShapeInferContext* raw) const {
    Ort::ShapeInferContext context(&Ort::GetApi(), raw);
    // This uses the C API because the C++ API of some releases has errors: it reads past the end of strings, and writes
    // -2 for a named size.
    const OrtApi& api = Ort::GetApi();
    const OrtOpAttr* attribute = nullptr;
    char padding[8] = {};
    size_t length = 0;
    Ort::ThrowOnError(api.ShapeInferContext_GetAttribute(raw, "padding", &attribute));
    Ort::ThrowOnError(api.ReadOpAttr(attribute, ORT_OP_ATTR_STRING, padding, sizeof padding - 1, &length));
    const bool keeps_size =
        !std::strcmp(padding, "same") && context.GetAttrInt("stride_h") == 1 && context.GetAttrInt("stride_w") == 1;
    auto shape = context.GetInputShape(0);
    if (shape.size() != 4) return;
    if (!keeps_size) {
      if (!uses_spatial(op.kind)) return;
      const auto& filters = context.GetInputShape(context.GetInputCount() - 1);
      if (filters.size() != 4) return;
      std::copy_n(filters.begin() + 1, 2, shape.begin() + 1);
    }
    for (const auto& size : shape) {
      if (size.IsInt() && size.AsInt() < 0) return;  // unknown, without a name
    }
    OrtTensorTypeAndShapeInfo *input = nullptr, *inferred = nullptr;  // the context owns `input`
    ONNXTensorElementDataType element;  // may differ from `type`: the first op of a name infers for all types
    Ort::ThrowOnError(api.ShapeInferContext_GetInputTypeShape(raw, 0, &input));
    Ort::ThrowOnError(api.GetTensorElementType(input, &element));
    Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&inferred));
    const Ort::TensorTypeAndShapeInfo owner(inferred);
    std::vector<int64_t> sizes;
    std::vector<const char*> names;
    for (const auto& size : shape) {
      sizes.push_back(size.IsInt() ? size.AsInt() : -1);
      names.push_back(size.IsInt() ? "" : size.AsSym());
    }
    Ort::ThrowOnError(api.SetTensorElementType(inferred, element));
    Ort::ThrowOnError(api.SetDimensions(inferred, sizes.data(), sizes.size()));
    Ort::ThrowOnError(api.SetSymbolicDimensions(inferred, names.data(), names.size()));
    Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(raw, 0, inferred));
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded([&] { *kernel = new FilterKernel(op, type.dtype, on_cuda, info); });
  }
  const char* GetName() const { return op.name + std::strlen(kTensorFlowPrefix); }
  const char* GetExecutionProviderType() const { return on_cuda ? "CUDAExecutionProvider" : "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return operands; }
  ONNXTensorElementDataType GetInputType(size_t) const { return type.onnx; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return type.onnx; }

  const FamilyOp& op;
  Type type;
  bool on_cuda;
  size_t operands;
};

// The domains with all ops. They are never freed, because sessions refer to them and may outlive the static variables
// of this library.
const std::vector<Ort::CustomOpDomain>& domains() {
  static const auto& all = []() -> const std::vector<Ort::CustomOpDomain>& {
    std::vector<FilterOp*> ops;
    for (const FamilyOp& op : kFamilyOps) {
      if (op.derivative != Derivative::kOutput) continue;
      for (const Type type : kTypes) {
        ops.push_back(new FilterOp(op, type, false));
#ifdef KERAS_DYNFILTER_CUDA
        ops.push_back(new FilterOp(op, type, true));
#endif
      }
    }
    auto& result = *new std::vector<Ort::CustomOpDomain>();
    for (int i = 1; i <= kDomains; ++i) {
      result.emplace_back((i == 1 ? kDomain : message(kDomain, ".", i)).c_str());
      for (FilterOp* op : ops) result.back().Add(op);
    }
    return result;
  }();
  return all;
}

}  // namespace
}  // namespace keras_dynfilter

// The entry point that SessionOptions.register_custom_ops_library calls.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(keras_dynfilter::kApiVersion);
  if (api == nullptr) {
    char text[160];  // no memory is allocated, because nothing here catches an exception
    std::snprintf(text, sizeof text, "keras_dynfilter: Expected onnxruntime 1.%u or newer. Received: onnxruntime %s",
                  static_cast<unsigned>(keras_dynfilter::kApiVersion), base->GetVersionString());
    return base->GetApi(1)->CreateStatus(ORT_FAIL, text);
  }
  Ort::InitApi(api);
  return keras_dynfilter::guarded([&] {
    for (const auto& domain : keras_dynfilter::domains()) Ort::UnownedSessionOptions(options).Add(domain);
  });
}
