// SPDX-License-Identifier: Apache-2.0
// Which kernel computes a member of the family on the CPU, for one storage type.
#ifndef KERAS_DYNFILTER_CPU_RUN_H_
#define KERAS_DYNFILTER_CPU_RUN_H_

#include <algorithm>
#include <cstring>

#include "cpu/channel_lanes.h"
#include "cpu/channel_rows.h"
#include "cpu/flat_lanes.h"
#include "cpu/tap_lanes.h"
#include "filter.h"

namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL {

// Bands of output rows whose partial sums are formed apart and added in order: few enough to be cheap, and a function
// of the problem alone, so that the result does not depend on the number of threads.
inline int64_t bands(const Problem& p) {
  constexpr int64_t kProductsPerBand = int64_t{1} << 20, kMostBands = 64;
  const int64_t products = p.out_height * p.out_width * p.channels * taps(p);
  return std::clamp<int64_t>(products / kProductsPerBand, 1, std::max<int64_t>(1, std::min(p.out_height, kMostBands)));
}

template <typename A>
int64_t cost_of_row(const Problem& p, int64_t width) {
  return std::max<int64_t>(1, width * p.channels * taps(p) / 8 + width * p.heads * taps(p) / 4);
}

struct NoRows {
  template <typename... Arguments>
  explicit NoRows(const Arguments&...) {}
};
template <typename T, Weight kWeight, bool kForward>
using FlatRows = std::conditional_t<kWeight == Weight::kChannel, flat_lanes::Rows<T, kForward>, NoRows>;

template <typename T, Weight kWeight>
void run_output(const Problem& p, const Operands<T>& o, const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const bool few = (kWeight == Weight::kSpatial || kWeight == Weight::kSoftmax) && p.channels / p.heads < kLanes<A>;
  const bool flat = flat_lanes::applies<T>(p);
  parallel_for(p.batch * p.out_height, cost_of_row<A>(p, p.out_width), [&](int64_t begin, int64_t end) {
    channel_lanes::Rows<T, kWeight, true> rows(p, o, nullptr);
    [[maybe_unused]] FlatRows<T, kWeight, true> flat_rows(p, o);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / p.out_height, i = r % p.out_height;
      if constexpr (kWeight == Weight::kSpatial || kWeight == Weight::kSoftmax) {
        if (few) {
          tap_lanes::row<T, kWeight>(p, o, n, i);
          continue;
        }
      }
      if constexpr (kWeight == Weight::kChannel) {
        if (flat && flat_rows.run(n, i)) continue;
      }
      rows.run(n, i);
    }
  });
}

template <typename T, Weight kWeight>
void run_inputs(const Problem& p, const Operands<T>& o, void* workspace, const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  auto* stats = static_cast<Softmax<A>*>(workspace);
  if constexpr (kWeight == Weight::kSoftmax) {
    const int64_t K = taps(p);
    parallel_for(p.batch * p.out_height * p.out_width * p.heads, K, [&](int64_t begin, int64_t end) {
      FilterBuffer<A> buffer(K);
      for (int64_t f = begin; f < end; ++f) stats[f] = exponentials(o.spatial + f * K, K, buffer.get());
    });
  }
  const bool few = (kWeight == Weight::kSpatial || kWeight == Weight::kSoftmax) && p.channels / p.heads < kLanes<A>;
  const bool flat = flat_lanes::applies<T>(p);
  parallel_for(p.batch * p.height, cost_of_row<A>(p, p.width), [&](int64_t begin, int64_t end) {
    channel_lanes::Rows<T, kWeight, false> rows(p, o, stats);
    [[maybe_unused]] FlatRows<T, kWeight, false> flat_rows(p, o);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / p.height, y = r % p.height;
      if constexpr (kWeight == Weight::kSpatial || kWeight == Weight::kSoftmax) {
        if (few) {
          tap_lanes::inputs_row<T, kWeight>(p, o, stats, n, y);
          continue;
        }
      }
      if constexpr (kWeight == Weight::kChannel) {
        if (flat && flat_rows.run(n, y)) continue;
      }
      rows.run(n, y);
    }
  });
}

template <typename T, Weight kWeight>
void run_spatial(const Problem& p, const Operands<T>& o, const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const bool few = kWeight != Weight::kMul && p.channels / p.heads < kLanes<A>;
  parallel_for(p.batch * p.out_height, cost_of_row<A>(p, p.out_width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / p.out_height, i = r % p.out_height;
      if constexpr (kWeight != Weight::kMul) {
        if (few) {
          tap_lanes::spatial_row<T, kWeight>(p, o, n, i);
          continue;
        }
      }
      channel_lanes::spatial_row<T, kWeight>(p, o, n, i);
    }
  });
}

template <typename T, Weight kWeight>
void run_channel(const Problem& p, const Operands<T>& o, void* workspace, const ParallelFor& parallel_for) {
  using A = Accumulator<T>;
  const int64_t size = taps(p) * p.channels, count = bands(p);
  auto* partials = static_cast<A*>(workspace);
  const bool flat = flat_lanes::applies<T>(p);
  const int64_t cost = cost_of_row<A>(p, p.out_width) * std::max<int64_t>(1, p.out_height / count);
  parallel_for(p.batch * count, cost, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = b / count, band = b % count;
      const int64_t first = p.out_height * band / count, last = p.out_height * (band + 1) / count;
      A* partial = partials + b * size;
      std::fill(partial, partial + size, A(0));
      if constexpr (kWeight == Weight::kChannel) {
        if (flat) {
          flat_lanes::channel_rows<T>(p, o, n, first, last, partial);
          continue;
        }
      }
      channel_lanes::channel_rows<T, kWeight>(p, o, n, first, last, partial);
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

template <typename T, Weight kWeight>
void run_weight(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  const Operands<T> o(b);
  switch (p.member) {
    case Member::kOutput: return run_output<T, kWeight>(p, o, parallel_for);
    case Member::kInputs: return run_inputs<T, kWeight>(p, o, b.workspace, parallel_for);
    case Member::kSpatial:
      if constexpr (uses_spatial(kWeight) && kWeight != Weight::kAdd) run_spatial<T, kWeight>(p, o, parallel_for);
      return;
    case Member::kChannel:
      if constexpr (kWeight == Weight::kChannel || kWeight == Weight::kMul) {
        run_channel<T, kWeight>(p, o, b.workspace, parallel_for);
      }
      return;
  }
}

template <typename T>
void run_type(const Problem& p, const Buffers& b, const ParallelFor& parallel_for) {
  switch (p.weight) {
    case Weight::kSpatial: return run_weight<T, Weight::kSpatial>(p, b, parallel_for);
    case Weight::kChannel: return run_weight<T, Weight::kChannel>(p, b, parallel_for);
    case Weight::kMul: return run_weight<T, Weight::kMul>(p, b, parallel_for);
    case Weight::kAdd: return run_weight<T, Weight::kAdd>(p, b, parallel_for);
    case Weight::kSoftmax: return run_weight<T, Weight::kSoftmax>(p, b, parallel_for);
  }
}

// One a source file, so that they compile side by side.
extern template void run_type<float>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<double>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<Float16>(const Problem&, const Buffers&, const ParallelFor&);
extern template void run_type<BFloat16>(const Problem&, const Buffers&, const ParallelFor&);

}  // namespace keras_dynfilter::cpu::KERAS_DYNFILTER_LEVEL

#endif  // KERAS_DYNFILTER_CPU_RUN_H_
