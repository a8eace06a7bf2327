// SPDX-License-Identifier: Apache-2.0
// The instruction set the CPU kernels run with: that of the building machine, or, in a portable build, the best of
// x86-64-v4 (AVX-512), x86-64-v3 (AVX2) and the baseline that this machine has.
#include <cstdlib>
#include <cstring>

#include "filter.h"
#include "project.h"

#define DECLARE(level)                                                       \
  namespace level {                                                          \
  size_t workspace_bytes(const Problem&);                                    \
  size_t workspace_bytes(const Projection&);                                 \
  void run(const Problem&, const Buffers&, const ParallelFor&);              \
  void run(const Projection&, const ProjectionBuffers&, const ParallelFor&); \
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

template <typename Work>
size_t bytes(const Work& work) {
  return baseline::workspace_bytes(work);  // the same on all levels
}

template <typename Work, typename Memory>
void run_best(const Work& work, const Memory& memory, const ParallelFor& parallel_for) {
  static const Level level = detect();
  switch (level) {
    case Level::kV4: return v4::run(work, memory, parallel_for);
    case Level::kV3: return v3::run(work, memory, parallel_for);
    case Level::kBaseline: return baseline::run(work, memory, parallel_for);
  }
}

}  // namespace

#else

DECLARE(native)

namespace {

template <typename Work>
size_t bytes(const Work& work) {
  return native::workspace_bytes(work);
}

template <typename Work, typename Memory>
void run_best(const Work& work, const Memory& memory, const ParallelFor& parallel_for) {
  native::run(work, memory, parallel_for);
}

}  // namespace

#endif

size_t workspace_bytes(const Problem& problem) { return bytes(problem); }
size_t workspace_bytes(const Projection& projection) { return bytes(projection); }

void run(const Problem& problem, const Buffers& buffers, const ParallelFor& parallel_for) {
  run_best(problem, buffers, parallel_for);
}

void run(const Projection& projection, const ProjectionBuffers& buffers, const ParallelFor& parallel_for) {
  run_best(projection, buffers, parallel_for);
}

}  // namespace keras_dynfilter::cpu
