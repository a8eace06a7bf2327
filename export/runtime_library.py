# SPDX-License-Identifier: Apache-2.0
"""Locates the library of compiled ops for onnxruntime."""

import sys

from keras_dynfilter.custom_ops import build, installed


def ort_library() -> str:
    """Returns the path of the library that runs the native ops of exported ONNX files.

    It is the library in the package, if the package has one. Otherwise it is in the cache, and built if necessary. The
    library needs neither TensorFlow nor this package at run time, so it can be copied to the machine that runs the
    files. If that machine has another processor, set `KERAS_DYNFILTER_MARCH=portable` before the library is built.
    `docs/guide/deployment.md` has the cross build for another kind of processor, such as aarch64.

    Raises:
        RuntimeError: There is no compiler, the headers of onnxruntime were not found, or the system is Windows.

    Example:

    >>> options = onnxruntime.SessionOptions()
    >>> options.register_custom_ops_library(export.ort_library())
    >>> session = onnxruntime.InferenceSession("model.onnx", options)
    """
    library = installed.find_ort()
    if library is not None:
        return str(library)
    return str(build.build_ort(progress=lambda text: print(text, file=sys.stderr, flush=True)))
