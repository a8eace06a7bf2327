// SPDX-License-Identifier: Apache-2.0
// Catches exceptions at the entries of every host. The hosts are compiled without exceptions, or have a C interface, so
// an exception that leaves an entry would end the process.
#ifndef KERAS_DYNFILTER_EXCEPTIONS_H_
#define KERAS_DYNFILTER_EXCEPTIONS_H_

#include <exception>
#include <new>

namespace keras_dynfilter {

// Runs `body` and returns its result. If it throws, returns on_failure(out_of_memory, text) instead.
template <typename Body, typename OnFailure>
auto catch_exceptions(const Body& body, const OnFailure& on_failure) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return on_failure(true, "keras_dynfilter: out of memory");
  } catch (const std::exception& e) {
    return on_failure(false, e.what());
  } catch (...) {
    return on_failure(false, "keras_dynfilter: an unknown exception");
  }
}

}  // namespace keras_dynfilter

#endif  // KERAS_DYNFILTER_EXCEPTIONS_H_
