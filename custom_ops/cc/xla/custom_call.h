// SPDX-License-Identifier: Apache-2.0
// The names of the custom calls and of their attribute, shared by the lowerings and the handlers.
#ifndef KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_
#define KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_

namespace keras_dynfilter {

// Runs an op of the family. Operands, in this order, if the derivative reads them: inputs, channel, spatial, grad.
// Results: the derivative, and the workspace if one is needed.
inline constexpr char kCustomCall[] = "keras_dynfilter_filter";
// The attribute: the fields of Problem, in order, as 64-bit integers.
inline constexpr char kProblem[] = "problem";

// Runs ProjectAndPool on the CPU. Operands: inputs, kernel, bias. Results: projected, means, workspace. It has no
// attribute; the shapes determine the problem.
inline constexpr char kProjectAndPoolCall[] = "keras_dynfilter_project_and_pool";

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_CUSTOM_CALL_H_
