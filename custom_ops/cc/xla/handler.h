// SPDX-License-Identifier: Apache-2.0
// What the handlers of custom calls share: the API of XLA, and the conversion of exceptions to errors.
#ifndef KERAS_DYNFILTER_XLA_HANDLER_H_
#define KERAS_DYNFILTER_XLA_HANDLER_H_

#include "exceptions.h"
#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
const XLA_FFI_Api* GetXlaFfiApi();  // TensorFlow exports this function, but no header of the C API declares it
}

namespace keras_dynfilter {

namespace ffi = xla::ffi;

// Runs a function that returns an error.
template <typename Body>
ffi::Error guarded(const Body& body) {
  return catch_exceptions(body, [](bool out_of_memory, const char* text) {
    return ffi::Error(out_of_memory ? ffi::ErrorCode::kResourceExhausted : ffi::ErrorCode::kInternal, text);
  });
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_XLA_HANDLER_H_
