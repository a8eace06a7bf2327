// SPDX-License-Identifier: Apache-2.0
// Selects the instruction set of the CPU kernels. A portable library for x86-64 uses the best of x86-64-v4 (AVX-512),
// x86-64-v3 (AVX2) and the baseline that this machine supports; for other processors it has only the baseline, which
// includes NEON on aarch64. Any other library has only the instruction set for which it was compiled.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu/flush_subnormals.h"
#include "family.h"
#include "project_and_pool.h"

#define DECLARE(target)                                                      \
  namespace target {                                                         \
  size_t workspace_bytes(const Problem&);                                    \
  size_t workspace_bytes(const Projection&);                                 \
  void run(const Problem&, const Buffers&, const ParallelFor&);              \
  void run(const Projection&, const ProjectionBuffers&, const ParallelFor&); \
  }

namespace keras_dynfilter::cpu {

#ifdef KERAS_DYNFILTER_PORTABLE

#if defined(__x86_64__)
DECLARE(v4)
DECLARE(v3)
#endif
DECLARE(baseline)

namespace {

struct IsaTarget {
  const char* name;
  bool supported;
  void (*filter)(const Problem&, const Buffers&, const ParallelFor&);
  void (*project)(const Projection&, const ProjectionBuffers&, const ParallelFor&);

  void run(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) const { filter(p, b, parallel_for); }
  void run(const Projection& p, const ProjectionBuffers& b, const ParallelFor& parallel_for) const {
    project(p, b, parallel_for);
  }
};

IsaTarget detect() {
#define TARGET(target, supported)                \
  {                                              \
    #target, supported, target::run, target::run \
  }
  const IsaTarget fallback = TARGET(baseline, true);
#if defined(__x86_64__)
  constexpr char kNames[] = "v4, v3 or baseline";
  const IsaTarget targets[] = {TARGET(v4, __builtin_cpu_supports("x86-64-v4") != 0),
                               TARGET(v3, __builtin_cpu_supports("x86-64-v3") != 0), fallback};
#else
  constexpr char kNames[] = "baseline";
  const IsaTarget targets[] = {fallback};
#endif
  // For tests and comparisons, the variable limits the choice to one target.
  const char* limit = std::getenv("KERAS_DYNFILTER_CPU_ISA_TARGET");
  const bool limited = limit != nullptr && *limit != '\0';
  for (const IsaTarget& t : targets) {
    if (t.supported && (!limited || std::strcmp(limit, t.name) == 0)) return t;
  }
  // A kernel cannot return an error, and the hosts have no common log.
  std::fprintf(stderr,
               "keras_dynfilter: Expected KERAS_DYNFILTER_CPU_ISA_TARGET to be %s, and an instruction set of this "
               "processor. Received: %s. The baseline is used.\n",
               kNames, limit);
  return fallback;
}

const IsaTarget& best() {
  static const IsaTarget target = detect();
  return target;
}

template <typename Work>
size_t bytes(const Work& work) {
  return baseline::workspace_bytes(work);  // equal on all targets
}

template <typename Work, typename Memory>
void run_best(const Work& work, const Memory& memory, const ParallelFor& parallel_for) {
  best().run(work, memory, parallel_for);
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
  run_best(problem, buffers, rethrowing(flushing(parallel_for)));
}

void run(const Projection& projection, const ProjectionBuffers& buffers, const ParallelFor& parallel_for) {
  run_best(projection, buffers, rethrowing(flushing(parallel_for)));
}

}  // namespace keras_dynfilter::cpu
