// SPDX-License-Identifier: Apache-2.0
// Runs an exported ONNX file through onnxruntime's C++ API, compares its outputs with Keras, and times it.
//
//   g++ -O2 -std=c++17 onnx_runner.cc -I HEADERS libonnxruntime.so.1 -Wl,-rpath,'$ORIGIN' -o onnx_runner
//   ./onnx_runner model.onnx inputs.npy expected.npy output_0 2 libkeras_dynfilter_ort.so
//
// Without the last argument the same file runs on standard ops. README.md says where HEADERS and the libraries are.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "onnxruntime_cxx_api.h"

// An array of float32 in row-major order.
struct Array {
  std::vector<int64_t> shape;
  std::vector<float> values;
  int64_t values_per_row() const { return static_cast<int64_t>(values.size()) / shape[0]; }
};

// Reads a .npy file of float32 in row-major order: a text header with the shape, then the numbers.
Array read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), {});
  if (all.size() < 10 || all.compare(0, 7, "\x93NUMPY\x01")) throw std::runtime_error(path + ": not a .npy file");
  const size_t start = 10 + static_cast<uint8_t>(all[8]) + 256 * static_cast<uint8_t>(all[9]);
  const std::string header = all.substr(10, start - 10);
  const size_t shape = header.find("'shape': (");
  if (header.find("'<f4'") == header.npos || header.find("'fortran_order': False") == header.npos ||
      shape == header.npos) {
    throw std::runtime_error(path + ": expected float32 in row-major order");
  }
  Array array;
  std::istringstream sizes(header.substr(shape + 10));
  int64_t size = 0, count = 1;
  for (char comma = ','; comma == ',' && sizes >> size; sizes >> comma) {
    array.shape.push_back(size);
    count *= size;
  }
  if (array.shape.empty() || count < 1 || all.size() - start != count * sizeof(float)) {
    throw std::runtime_error(path + ": its size does not match its shape");
  }
  array.values.resize(count);
  std::copy_n(all.data() + start, count * sizeof(float), reinterpret_cast<char*>(array.values.data()));
  return array;
}

// Parses a positive integer.
int positive(const char* name, const char* text) {
  const char* end = text + std::strlen(text);
  int value = 0;
  const auto [rest, problem] = std::from_chars(text, end, value);
  if (problem != std::errc() || rest != end || value < 1) {
    throw std::runtime_error(std::string("expected ") + name + " to be an integer above zero, received '" + text + "'");
  }
  return value;
}

int run(int argc, char** argv) {
  if (argc < 6 || argc > 7) {
    std::fprintf(stderr, "usage: %s MODEL INPUTS EXPECTED OUTPUT THREADS [LIBRARY]\n", argv[0]);
    return 2;
  }
  const int threads = positive("THREADS", argv[5]);
  Array inputs = read(argv[2]);
  const Array expected = read(argv[3]);
  if (inputs.shape[0] != expected.shape[0]) throw std::runtime_error("expected as many results as inputs");

  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  if (argc == 7) options.RegisterCustomOpsLibrary(argv[6]);
  Ort::Session session(env, argv[1], options);
  Ort::AllocatorWithDefaultOptions allocator;
  const auto name = session.GetInputNameAllocated(0, allocator);
  const char *input_names[] = {name.get()}, *output_names[] = {argv[4]};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  const auto call = [&](int64_t index) {
    std::vector<int64_t> shape = inputs.shape;
    shape[0] = 1;
    const int64_t size = inputs.values_per_row();
    const auto input =
        Ort::Value::CreateTensor<float>(memory, inputs.values.data() + index * size, size, shape.data(), shape.size());
    return std::move(session.Run(Ort::RunOptions(), input_names, &input, 1, output_names, 1)[0]);
  };
  call(0);  // not timed: onnxruntime allocates its memory in the first call
  double error = 0, largest = 0;
  std::vector<double> times;
  for (int64_t i = 0; i < inputs.shape[0]; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Ort::Value output = call(i);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    const int64_t size = expected.values_per_row();
    if (static_cast<int64_t>(output.GetTensorTypeAndShapeInfo().GetElementCount()) != size) {
      throw std::runtime_error("the output and the output of Keras have different sizes");
    }
    for (int64_t k = 0; k < size; ++k) {
      const double wanted = expected.values[i * size + k], gap = output.GetTensorData<float>()[k] - wanted;
      if (!(std::abs(gap) <= error)) error = std::isnan(gap) ? INFINITY : std::abs(gap);
      largest = std::max(largest, std::abs(wanted));
    }
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  const bool passed = error <= 1e-4 * largest;
  char shown[32] = "Infinity";
  if (std::isfinite(error)) std::snprintf(shown, sizeof shown, "%.3e", error);
  std::printf(
      "{\"runtime\": \"onnxruntime %s, C++\", \"ms\": %.4f, \"max_abs\": %s, \"passed\": %s, \"importable\": []}\n",
      Ort::GetVersionString().c_str(), times[times.size() / 2], shown, passed ? "true" : "false");
  return passed ? 0 : 1;
}

int main(int argc, char** argv) try { return run(argc, argv); } catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
