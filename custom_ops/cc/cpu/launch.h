// SPDX-License-Identifier: Apache-2.0
// Runs the chosen kernel on the CPU, for one storage type.
#ifndef KERAS_DYNFILTER_CPU_LAUNCH_H_
#define KERAS_DYNFILTER_CPU_LAUNCH_H_

#include <algorithm>

#include "cpu/choose_kernel.h"
#include "cpu/kernels/channel_lanes_filters.h"
#include "cpu/kernels/channel_lanes_pixels.h"
#include "cpu/kernels/flat_lanes.h"
#include "cpu/kernels/tap_lanes.h"
#include "family.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET {

// The number of bands of output rows in the gradient with respect to channel filters.
inline int64_t bands(const Problem& p) {
  return band_count(p.out_height * p.out_width * p.channels * taps(p), p.out_height);
}

// An estimate of the nanoseconds for a row of `width` pixels.
inline int64_t cost_of_row(const Problem& p, int64_t width) {
  return std::max<int64_t>(1, width * p.channels * taps(p) / 8 + width * p.heads * taps(p) / 4);
}

// Computes the maximum and the scale of the softmax of every filter.
template <typename T>
void run_softmax(const Problem& p, const Operands<T>& o, Softmax<Accumulator<T>>* softmax,
                 const ParallelFor& parallel_for) {
  const int64_t K = taps(p);
  parallel_for(p.batch * p.out_height * p.out_width * p.heads, K, [&](int64_t begin, int64_t end) {
    FilterBuffer<Accumulator<T>> buffer(K);
    for (int64_t f = begin; f < end; ++f) softmax[f] = exponentials(o.spatial + f * K, K, buffer.get());
  });
}

// Computes the output (kForward) or the gradient with respect to the inputs. `softmax` normalises logits in the
// gradient.
template <typename T, FilterKind kKind, bool kForward>
void run_pixels(const Problem& p, Choice choice, const Operands<T>& o, const Softmax<Accumulator<T>>* softmax,
                const ParallelFor& parallel_for) {
  const int64_t height = kForward ? p.out_height : p.height, width = kForward ? p.out_width : p.width;
  parallel_for(p.batch * height, cost_of_row(p, width), [&](int64_t begin, int64_t end) {
    if constexpr (kKind == FilterKind::kSpatial || kKind == FilterKind::kSoftmax) {
      if (choice.kernel == Kernel::kTapLanes) {
        for (int64_t r = begin; r < end; ++r) {
          if constexpr (kForward) {
            tap_lanes::output_row<T, kKind>(p, o, r / height, r % height);
          } else {
            tap_lanes::inputs_row<T, kKind>(p, o, softmax, r / height, r % height);
          }
        }
        return;
      }
    }
    channel_lanes::Rows<T, kKind, kForward> rows(p, o, choice, softmax);
    if constexpr (kKind == FilterKind::kChannel) {
      if (choice.kernel == Kernel::kFlatLanes) {
        flat_lanes::Rows<T, kForward> flat_rows(p, o);
        for (int64_t r = begin; r < end; ++r) {
          if (!flat_rows.run(r / height, r % height)) rows.run(r / height, r % height);
        }
        return;
      }
    }
    for (int64_t r = begin; r < end; ++r) rows.run(r / height, r % height);
  });
}

// Computes the gradient with respect to the spatial filters.
template <typename T, FilterKind kKind>
void run_spatial(const Problem& p, Choice choice, const Operands<T>& o, const ParallelFor& parallel_for) {
  parallel_for(p.batch * p.out_height, cost_of_row(p, p.out_width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / p.out_height, i = r % p.out_height;
      if constexpr (kKind != FilterKind::kMul) {
        if (choice.kernel == Kernel::kTapLanes) {
          tap_lanes::spatial_row<T, kKind>(p, o, n, i);
          continue;
        }
      }
      channel_lanes::spatial_row<T, kKind>(p, o, n, i);
    }
  });
}

// Computes the gradient with respect to the channel filters: first a partial sum per band, then the sum of the partial
// sums, in order.
template <typename T, FilterKind kKind>
void run_channel(const Problem& p, Choice choice, const Operands<T>& o, void* workspace,
                 const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const int64_t size = taps(p) * p.channels, count = bands(p);
  auto* partials = static_cast<A*>(workspace);
  const int64_t cost = cost_of_row(p, p.out_width) * std::max<int64_t>(1, p.out_height / count);
  parallel_for(p.batch * count, cost, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = b / count;
      const Range rows = nth_range(p.out_height, b % count, count);
      A* partial = partials + b * size;
      std::fill(partial, partial + size, A(0));
      if constexpr (kKind == FilterKind::kChannel) {
        if (choice.kernel == Kernel::kFlatLanes) {
          flat_lanes::channel_rows<T>(p, o, n, rows.begin, rows.end, partial);
          continue;
        }
      }
      channel_lanes::channel_rows<T, kKind>(p, o, n, rows.begin, rows.end, partial);
    }
  });
  parallel_for(p.batch * size, count, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      const A* partial = partials + e / size * count * size + e % size;
      A total = 0;
      for (int64_t b = 0; b < count; ++b) total += partial[b * size];
      o.result[e] = from_accumulator<T>(total);
    }
  });
}

template <typename T, FilterKind kKind>
void run_kind(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  const Operands<T> o(b);
  const Choice choice = choose_kernel(p, kLanes<Accumulator<T>>);
  switch (p.derivative) {
    case Derivative::kOutput: return run_pixels<T, kKind, true>(p, choice, o, nullptr, parallel_for);
    case Derivative::kInputs: {
      auto* softmax = static_cast<Softmax<Accumulator<T>>*>(b.workspace);
      if constexpr (kKind == FilterKind::kSoftmax) run_softmax(p, o, softmax, parallel_for);
      return run_pixels<T, kKind, false>(p, choice, o, softmax, parallel_for);
    }
    case Derivative::kSpatial:
      if constexpr (uses_spatial(kKind) && kKind != FilterKind::kAdd) run_spatial<T, kKind>(p, choice, o, parallel_for);
      return;
    case Derivative::kChannel:
      if constexpr (kKind == FilterKind::kChannel || kKind == FilterKind::kMul) {
        run_channel<T, kKind>(p, choice, o, b.workspace, parallel_for);
      }
      return;
  }
}

template <typename T>
void run_type(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  switch (p.kind) {
    case FilterKind::kSpatial: return run_kind<T, FilterKind::kSpatial>(p, b, parallel_for);
    case FilterKind::kChannel: return run_kind<T, FilterKind::kChannel>(p, b, parallel_for);
    case FilterKind::kMul: return run_kind<T, FilterKind::kMul>(p, b, parallel_for);
    case FilterKind::kAdd: return run_kind<T, FilterKind::kAdd>(p, b, parallel_for);
    case FilterKind::kSoftmax: return run_kind<T, FilterKind::kSoftmax>(p, b, parallel_for);
  }
}

// Each type has its own source file, so that the types compile in parallel.
extern template void run_type<float>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<double>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<Float16>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<BFloat16>(const Problem&, const Buffers&, const ParallelFor&);

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_ISA_TARGET

#endif  // KERAS_DYNFILTER_CPU_LAUNCH_H_
