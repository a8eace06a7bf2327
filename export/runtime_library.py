# SPDX-License-Identifier: Apache-2.0
"""Locates the library of compiled ops for onnxruntime."""

import sys

from keras_dynfilter.custom_ops import build


def ort_library() -> str:
    """Returns the path of the library that runs the native ops of exported ONNX files; builds the library if necessary.

    The library needs neither TensorFlow nor this package at run time: copy it to where the files are used. For another
    processor than the one of this machine, set `KERAS_DYNFILTER_MARCH=portable` before it is built.

    Raises:
        RuntimeError: There is no compiler, or the headers of onnxruntime were not found. The message says what to do.

    Example:

    >>> options = onnxruntime.SessionOptions()
    >>> options.register_custom_ops_library(export.ort_library())
    >>> session = onnxruntime.InferenceSession("model.onnx", options)
    """
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"The library is built on Linux only, not on {sys.platform}")
    return str(build.build_ort(progress=lambda text: print(text, file=sys.stderr, flush=True)))
