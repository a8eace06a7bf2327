// SPDX-License-Identifier: Apache-2.0
// The instruction set the CPU kernels run with: that of the building machine, or, in a portable build, the best of
// x86-64-v4 (AVX-512), x86-64-v3 (AVX2) and the baseline that this machine has.
#include <cstdlib>
#include <cstring>

#include "filter.h"

#define DECLARE(level)                                          \
  namespace level {                                             \
  size_t workspace_bytes(const Problem&);                       \
  void run(const Problem&, const Buffers&, const ParallelFor&); \
  }

namespace keras_dynfilter::cpu {

#ifdef KERAS_DYNFILTER_PORTABLE

DECLARE(v4)
DECLARE(v3)
DECLARE(baseline)

namespace {

enum class Level { kV4, kV3, kBaseline };

Level detect() {
  // For tests, and to compare: a level that the machine has, by name.
  const char* asked = std::getenv("KERAS_DYNFILTER_CPU_LEVEL");
  const auto allowed = [asked](const char* name) { return asked == nullptr || std::strcmp(asked, name) == 0; };
  if (__builtin_cpu_supports("x86-64-v4") && allowed("v4")) return Level::kV4;
  if (__builtin_cpu_supports("x86-64-v3") && allowed("v3")) return Level::kV3;
  return Level::kBaseline;
}

}  // namespace

size_t workspace_bytes(const Problem& problem) { return baseline::workspace_bytes(problem); }

void run(const Problem& problem, const Buffers& buffers, const ParallelFor& parallel_for) {
  static const Level level = detect();
  switch (level) {
    case Level::kV4: return v4::run(problem, buffers, parallel_for);
    case Level::kV3: return v3::run(problem, buffers, parallel_for);
    case Level::kBaseline: return baseline::run(problem, buffers, parallel_for);
  }
}

#else

DECLARE(native)

size_t workspace_bytes(const Problem& problem) { return native::workspace_bytes(problem); }

void run(const Problem& problem, const Buffers& buffers, const ParallelFor& parallel_for) {
  native::run(problem, buffers, parallel_for);
}

#endif

}  // namespace keras_dynfilter::cpu
