// SPDX-License-Identifier: Apache-2.0
// The forward ops of the family for onnxruntime: checks, memory, threads or stream, and then the kernels of filter.h.
// Domain keras_dynfilter, version 1; inputs in the order of TensorFlow's raw ops, and their attributes, all of them.
// The same ops are in the domains keras_dynfilter.2, .3, ...: in a file with several configurations of an op, each has
// a body of its own, and the domain tells them apart.
#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#define ORT_API_MANUAL_INIT
#include "onnxruntime_cxx_api.h"
#undef ORT_API_MANUAL_INIT
#include "arguments.h"

namespace keras_dynfilter {
namespace {

constexpr char kDomain[] = "keras_dynfilter", kTensorFlowPrefix[] = "KerasDynfilter>";
constexpr int kDomains = 32;  // as many as export/_onnx_native.py uses
// All that is called here exists since then, so libraries built with newer headers run in older runtimes.
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

// Errors leave as statuses: no exception crosses the C API.
template <typename Body>
OrtStatusPtr guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const Ort::Exception& e) {
    return Ort::GetApi().CreateStatus(e.GetOrtErrorCode(), e.what());
  } catch (const std::exception& e) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, e.what());
  }
}

template <typename T>
T attribute(const Ort::ConstKernelInfo& info, const char* name) {
  try {
    return info.GetAttribute<T>(name);
  } catch (const Ort::Exception& e) {
    throw Ort::Exception(message("keras_dynfilter: Attribute ", name, ": ", e.what()), e.GetOrtErrorCode());
  }
}

bool is_second(const Ort::ConstKernelInfo& info, const char* name, const char* first, const char* second) {
  const auto value = attribute<std::string>(info, name);
  if (value != first && value != second) {
    require(message("Expected ", name, " to be '", first, "' or '", second, "'. Received: ", name, "='", value, "'"));
  }
  return value == second;
}

Attributes read_attributes(const Ort::ConstKernelInfo& info, const Spec& spec) {
  Attributes a;
  for (auto [name, field] : a.numbers(spec)) *field = attribute<int64_t>(info, name);
  a.same = !is_second(info, "padding", "same", "valid");
  if (spec.combines) a.add = is_second(info, "combine", "mul", "add");
  require(a.check());
  return a;
}

// On the session's own threads, whose number the API does not tell: more ranges than there are processors.
void parallel_for(const Ort::KernelContext& context, int64_t total, int64_t cost,
                  const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kNanosecondsPerRange = 20000;
  const int64_t most = 4 * std::max<int64_t>(1, std::thread::hardware_concurrency());
  const int64_t per_range = std::max<int64_t>(kNanosecondsPerRange / std::max<int64_t>(cost, 1), 1);
  const int64_t ranges = std::min(most, (total + per_range - 1) / per_range);
  if (ranges <= 1) return body(0, total);
  struct Work {
    int64_t total, ranges;
    const std::function<void(int64_t, int64_t)>& body;
  } work{total, ranges, body};
  const auto run = [](void* data, size_t index) {
    const auto& w = *static_cast<Work*>(data);
    const auto r = static_cast<int64_t>(index);
    w.body(w.total * r / w.ranges, w.total * (r + 1) / w.ranges);
  };
  context.ParallelFor(run, ranges, 0, &work);
}

class FilterKernel {
 public:
  FilterKernel(const Spec& spec, DType dtype, bool on_cuda, const OrtKernelInfo* info)
      : spec_(spec), dtype_(dtype), on_cuda_(on_cuda), attributes_(read_attributes(Ort::ConstKernelInfo(info), spec)) {}

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
    require(fill_problem(spec_, attributes_, dtype_, shapes, {}, &problem, &result));
    if (!valid(problem)) require("Expected tensors of fewer than 2^48 elements");
    Ort::UnownedValue output = context.GetOutput(0, result);
    if (result_size(problem) == 0) return;

    Buffers b;
    size_t next = 0;
    if (reads_inputs(problem)) b.inputs = context.GetInput(next++).GetTensorRawData();
    if (reads_channel(problem)) b.channel = context.GetInput(next++).GetTensorRawData();
    if (reads_spatial(problem)) b.spatial = context.GetInput(next++).GetTensorRawData();
    // Forward members need no workspace.
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

  const Spec& spec_;
  DType dtype_;
  [[maybe_unused]] bool on_cuda_;
  Attributes attributes_;
};

// One op of the family, for one type, on one provider. onnxruntime chooses among those of a name by the inputs' type.
struct FilterOp : Ort::CustomOpBase<FilterOp, FilterKernel, true> {
  FilterOp(const Spec& spec, Type type, bool on_cuda) : spec(spec), type(type), on_cuda(on_cuda) {
    OrtCustomOp::version = kApiVersion;
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* raw) -> OrtStatusPtr {
      // What is wrong with a node is told when its kernel is made: then with the argument.
      OrtStatusPtr status = guarded([&] { static_cast<const FilterOp*>(op)->infer(raw); });
      if (status != nullptr) Ort::GetApi().ReleaseStatus(status);
      return nullptr;
    };
  }

  // The sizes of the result where those of an input tell them, names of open ones included.
  void infer(OrtShapeInferContext* raw) const {
    Ort::ShapeInferContext context(&Ort::GetApi(), raw);
    // By the C API where the C++ one of some releases errs: it reads past the end of texts, and writes -2 for a named
    // size.
    const OrtApi& api = Ort::GetApi();
    const OrtOpAttr* attribute = nullptr;
    char padding[8] = {};
    size_t length = 0;
    Ort::ThrowOnError(api.ShapeInferContext_GetAttribute(raw, "padding", &attribute));
    Ort::ThrowOnError(api.ReadOpAttr(attribute, ORT_OP_ATTR_STRING, padding, sizeof padding - 1, &length));
    const bool as_inputs =
        !std::strcmp(padding, "same") && context.GetAttrInt("stride_h") == 1 && context.GetAttrInt("stride_w") == 1;
    auto shape = context.GetInputShape(0);
    if (shape.size() != 4) return;
    if (!as_inputs) {
      if (!uses_spatial(spec.weight)) return;
      const auto& filters = context.GetInputShape(context.GetInputCount() - 1);
      if (filters.size() != 4) return;
      std::copy_n(filters.begin() + 1, 2, shape.begin() + 1);
    }
    for (const auto& size : shape) {
      if (size.IsInt() && size.AsInt() < 0) return;  // open, without a name
    }
    OrtTensorTypeAndShapeInfo *input = nullptr, *made = nullptr;  // the context owns the first
    ONNXTensorElementDataType element;  // of this node: the first op of a name infers for those of all types
    Ort::ThrowOnError(api.ShapeInferContext_GetInputTypeShape(raw, 0, &input));
    Ort::ThrowOnError(api.GetTensorElementType(input, &element));
    Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&made));
    const Ort::TensorTypeAndShapeInfo owner(made);
    std::vector<int64_t> sizes;
    std::vector<const char*> names;
    for (const auto& size : shape) {
      sizes.push_back(size.IsInt() ? size.AsInt() : -1);
      names.push_back(size.IsInt() ? "" : size.AsSym());
    }
    Ort::ThrowOnError(api.SetTensorElementType(made, element));
    Ort::ThrowOnError(api.SetDimensions(made, sizes.data(), sizes.size()));
    Ort::ThrowOnError(api.SetSymbolicDimensions(made, names.data(), names.size()));
    Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(raw, 0, made));
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded([&] { *kernel = new FilterKernel(spec, type.dtype, on_cuda, info); });
  }
  const char* GetName() const { return spec.name + std::strlen(kTensorFlowPrefix); }
  const char* GetExecutionProviderType() const { return on_cuda ? "CUDAExecutionProvider" : "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return 1 + uses_channel(spec.weight) + uses_spatial(spec.weight); }
  ONNXTensorElementDataType GetInputType(size_t) const { return type.onnx; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return type.onnx; }

  const Spec& spec;
  Type type;
  bool on_cuda;
};

// Sessions refer to them as long as they live, and they may outlive this library's own statics: they are never freed.
const std::vector<Ort::CustomOpDomain>& domains() {
  static const auto& all = []() -> const std::vector<Ort::CustomOpDomain>& {
    std::vector<FilterOp*> ops;
    for (const Spec& spec : kSpecs) {
      if (spec.member != Member::kOutput) continue;
      for (const Type type : kTypes) {
        ops.push_back(new FilterOp(spec, type, false));
#ifdef KERAS_DYNFILTER_CUDA
        ops.push_back(new FilterOp(spec, type, true));
#endif
      }
    }
    auto& made = *new std::vector<Ort::CustomOpDomain>();
    for (int i = 1; i <= kDomains; ++i) {
      made.emplace_back((i == 1 ? kDomain : message(kDomain, ".", i)).c_str());
      for (FilterOp* op : ops) made.back().Add(op);
    }
    return made;
  }();
  return all;
}

}  // namespace
}  // namespace keras_dynfilter

// What SessionOptions.register_custom_ops_library calls.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(keras_dynfilter::kApiVersion);
  if (api == nullptr) {
    const std::string text =
        keras_dynfilter::message("keras_dynfilter: Expected onnxruntime 1.", keras_dynfilter::kApiVersion,
                                 " or newer. Received: onnxruntime ", base->GetVersionString());
    return base->GetApi(1)->CreateStatus(ORT_FAIL, text.c_str());
  }
  Ort::InitApi(api);
  return keras_dynfilter::guarded([&] {
    for (const auto& domain : keras_dynfilter::domains()) Ort::UnownedSessionOptions(options).Add(domain);
  });
}
