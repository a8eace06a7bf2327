# SPDX-License-Identifier: Apache-2.0
"""The kernels of keras_dynfilter for onnxruntime."""

import sys


def ort_library():
    """Path of the library that runs the native ops of exported ONNX files; builds it if the cache lacks it.

    It needs neither TensorFlow nor this package when it runs, and may be copied to where the files are used (built with
    `KERAS_DYNFILTER_MARCH=portable` if that is another processor).

    Returns:
        The path, a string.

    Raises:
        RuntimeError: There is no compiler, or the headers of onnxruntime cannot be had; the message says what to do.

    Example:

    >>> options = onnxruntime.SessionOptions()
    >>> options.register_custom_ops_library(export.ort_library())
    >>> session = onnxruntime.InferenceSession("model.onnx", options)
    """
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"The library is built on Linux only, not on {sys.platform}")
    from keras_dynfilter.custom_ops import build

    return str(build.build_ort(progress=lambda text: print(text, file=sys.stderr, flush=True)))
