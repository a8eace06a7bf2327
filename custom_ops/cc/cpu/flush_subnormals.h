// SPDX-License-Identifier: Apache-2.0
// Makes threads treat subnormal numbers as zero. TensorFlow sets its threads so, ONNX Runtime does not, and the bits of
// a result must not depend on the host.
#ifndef KERAS_DYNFILTER_CPU_FLUSH_SUBNORMALS_H_
#define KERAS_DYNFILTER_CPU_FLUSH_SUBNORMALS_H_

#include <cstdint>

#include "parallel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace keras_dynfilter::cpu {

// While an object lives, its thread takes subnormal operands for zero, and sets subnormal results to zero.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(read()) { write(before_ | kFlush); }
  ~FlushSubnormals() { write(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__SSE2__)
  static constexpr uint64_t kFlush = 0x8040;  // flush to zero, denormals are zeros
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t state) { _mm_setcsr(static_cast<unsigned>(state)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = uint64_t{1} << 24;
  static uint64_t read() {
    uint64_t state;
    asm volatile("mrs %0, fpcr" : "=r"(state));
    return state;
  }
  static void write(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t read() { return 0; }
  static void write(uint64_t) {}
#endif

  const uint64_t before_;
};

// Returns a ParallelFor whose ranges flush subnormal numbers.
inline ParallelFor flushing(const ParallelFor& parallel_for) {
  return [&parallel_for](int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    parallel_for(total, cost, [&body](int64_t begin, int64_t end) {
      const FlushSubnormals flush;
      body(begin, end);
    });
  };
}

}  // namespace keras_dynfilter::cpu

#endif  // KERAS_DYNFILTER_CPU_FLUSH_SUBNORMALS_H_
