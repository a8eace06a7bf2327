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

// Products of sizes stay below this number, so that estimates of the work do not overflow.
inline constexpr int64_t kManyElements = int64_t{1} << 30;

// The largest number of bands of output rows in the gradient with respect to channel filters.
inline int64_t max_bands(const Problem& p) {
  return band_count(std::min(p.out_height * p.out_width * p.channels, kManyElements) * taps(p), p.out_height);
}

// The partial sums of the gradient with respect to channel filters.
inline PartialSums channel_sums(const Problem& p) {
  return split_sums(p.batch, max_bands(p), taps(p) * p.channels * accumulator_bytes(p.dtype));
}

// An estimate of the nanoseconds for a row of `width` pixels.
inline int64_t cost_of_row(const Problem& p, int64_t width) {
  const int64_t products = std::min(width * p.channels, kManyElements) * taps(p) / 8;
  const int64_t filters = std::min(width * p.heads, kManyElements) * taps(p) / 4;
  return std::clamp<int64_t>(products + filters, 1, kManyElements);
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

// Computes the gradient with respect to the channel filters, for groups of samples: first a partial sum per band, then
// the sum of the partial sums, in order. If large filters have few bands, threads also share the rows of a filter.
template <typename T, FilterKind kKind>
void run_channel(const Problem& p, Choice choice, const Operands<T>& o, void* workspace,
                 const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const PartialSums sums = channel_sums(p);
  const int64_t size = taps(p) * p.channels, bands = sums.bands;
  const int64_t slices = std::min(p.kernel_h, ceil_div(max_bands(p), bands));
  auto* partials = static_cast<A*>(workspace);
  const int64_t rows_of_unit = std::clamp<int64_t>(p.out_height / (bands * slices), 1, kManyElements);
  const int64_t cost = std::min(cost_of_row(p, p.out_width) * rows_of_unit, kManyElements);
  for (int64_t first = 0; first < p.batch; first += sums.samples) {
    const int64_t samples = std::min(sums.samples, p.batch - first);
    parallel_for(samples * bands * slices, cost, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t band = b / slices, n = first + band / bands;
        const Range rows = nth_range(p.out_height, band % bands, bands);
        const Range tap_rows = nth_range(p.kernel_h, b % slices, slices);
        A* partial = partials + band * size;
        const int64_t tap_row_size = p.kernel_w * p.channels;
        std::fill(partial + tap_rows.begin * tap_row_size, partial + tap_rows.end * tap_row_size, A(0));
        if constexpr (kKind == FilterKind::kChannel) {
          if (choice.kernel == Kernel::kFlatLanes) {
            flat_lanes::channel_rows<T>(p, o, n, rows, tap_rows, partial);
            continue;
          }
        }
        channel_lanes::channel_rows<T, kKind>(p, o, n, rows, tap_rows, partial);
      }
    });
    T* result = o.result + first * size;
    parallel_for(samples * size, bands, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) {
        const A* partial = partials + e / size * bands * size + e % size;
        A total = 0;
        for (int64_t b = 0; b < bands; ++b) total += partial[b * size];
        result[e] = from_accumulator<T>(total);
      }
    });
  }
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
