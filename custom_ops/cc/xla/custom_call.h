// SPDX-License-Identifier: Apache-2.0
// What the lowerings and the handlers agree on: the names of the custom calls, and their attribute.
#ifndef KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_
#define KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_

namespace keras_dynfilter {

// Operands: what the member reads, in the order of `Buffers`. Results: the member, and the workspace if there is one.
inline constexpr char kCustomCall[] = "keras_dynfilter_filter";
// The fields of Problem, in order, as 64-bit integers.
inline constexpr char kProblem[] = "problem";

// On CPUs. Operands: inputs, kernel, bias. Results: projected, means, workspace. Their shapes say all.
inline constexpr char kProjectCall[] = "keras_dynfilter_project_and_pool";

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_
