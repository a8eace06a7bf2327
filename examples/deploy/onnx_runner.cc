// SPDX-License-Identifier: Apache-2.0
// Runs an exported ONNX file through onnxruntime's C++ API, compares its outputs with Keras, and times it.
//
//   g++ -O2 -std=c++17 onnx_runner.cc -I HEADERS libonnxruntime.so.1 -Wl,-rpath,'$ORIGIN' -o onnx_runner
//   ./onnx_runner model.onnx inputs.npy expected.npy output_0 2 libkeras_dynfilter_ort.so
//
// Without the last argument, the same file runs on standard ops. README.md describes where to find HEADERS and the
// libraries.
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
Array read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.size() < 10 || bytes.compare(0, 7, "\x93NUMPY\x01")) throw std::runtime_error(path + ": not a .npy file");
  const size_t data_start = 10 + static_cast<uint8_t>(bytes[8]) + 256 * static_cast<uint8_t>(bytes[9]);
  const std::string header = bytes.substr(10, data_start - 10);
  const size_t shape_start = header.find("'shape': (");
  if (header.find("'<f4'") == header.npos || header.find("'fortran_order': False") == header.npos ||
      shape_start == header.npos) {
    throw std::runtime_error(path + ": expected float32 in row-major order");
  }
  Array array;
  std::istringstream sizes(header.substr(shape_start + 10));
  int64_t size = 0, count = 1;
  for (char comma = ','; comma == ',' && sizes >> size; sizes >> comma) {
    array.shape.push_back(size);
    count *= size;
  }
  if (array.shape.empty() || count < 1 || bytes.size() - data_start != count * sizeof(float)) {
    throw std::runtime_error(path + ": its size does not match its shape");
  }
  array.values.resize(count);
  std::copy_n(bytes.data() + data_start, count * sizeof(float), reinterpret_cast<char*>(array.values.data()));
  return array;
}

// Parses a positive integer.
int parse_positive(const char* name, const char* text) {
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
  const int threads = parse_positive("THREADS", argv[5]);
  Array inputs = read_npy(argv[2]);
  const Array expected = read_npy(argv[3]);
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
      const double keras_value = expected.values[i * size + k];
      const double difference = output.GetTensorData<float>()[k] - keras_value;
      if (!(std::abs(difference) <= error)) error = std::isnan(difference) ? INFINITY : std::abs(difference);
      largest = std::max(largest, std::abs(keras_value));
    }
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  const bool passed = error <= 1e-4 * largest;
  char error_text[32] = "Infinity";
  if (std::isfinite(error)) std::snprintf(error_text, sizeof error_text, "%.3e", error);
  std::printf(
      "{\"runtime\": \"onnxruntime %s, C++\", \"ms\": %.4f, \"max_abs\": %s, \"passed\": %s, \"importable\": []}\n",
      Ort::GetVersionString().c_str(), times[times.size() / 2], error_text, passed ? "true" : "false");
  return passed ? 0 : 1;
}

int main(int argc, char** argv) try { return run(argc, argv); } catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
