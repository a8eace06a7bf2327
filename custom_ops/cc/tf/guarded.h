// SPDX-License-Identifier: Apache-2.0
// Turns exceptions into statuses of TensorFlow, for its kernels, shape functions and XLA lowerings.
#ifndef KERAS_DYNFILTER_TF_GUARDED_H_
#define KERAS_DYNFILTER_TF_GUARDED_H_

#include "absl/status/status.h"
#include "exceptions.h"

namespace keras_dynfilter {

inline absl::Status failure(bool out_of_memory, const char* text) {
  return out_of_memory ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
}

// Runs a function that returns a status.
template <typename Body>
absl::Status guarded(const Body& body) {
  return catch_exceptions(body, failure);
}

// Runs a function that sets the status of `context`: an OpKernelConstruction, OpKernelContext or XlaOpKernelContext.
template <typename Context, typename Body>
void guarded(Context* context, const Body& body) {
  catch_exceptions(
      body, [context](bool out_of_memory, const char* text) { context->CtxFailure(failure(out_of_memory, text)); });
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_TF_GUARDED_H_
