# SPDX-License-Identifier: Apache-2.0
"""Loads exported files into the runtime of their format."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from examples.experiments.core.environment import cores

Sample = np.ndarray | dict[str, np.ndarray]


def threads_from_environment() -> int:
    """Returns the number of threads that TensorFlow uses for an op: TF_NUM_INTRAOP_THREADS, or the number of cores."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or cores())


def load_call(
    format: str, path: pathlib.Path, sample: Sample, threads: int, library: str | None = None
) -> Callable[[], dict[str, Any]]:
    """Loads an exported file. Returns a function without arguments that computes the outputs for a sample, by name.

    Args:
        format: `"saved_model"`, `"onnx"` or `"litert"`.
        path: The file or folder.
        sample: An array, or arrays by name.
        threads: Number of threads; 0 for the default of the runtime. A SavedModel ignores it and uses the threads of
            TensorFlow in this process.
        library: Path of the library of ops for onnxruntime, or None.
    """
    return {"saved_model": _saved_model, "onnx": _onnx, "litert": _litert}[format](path, sample, threads, library)


def onnx_session(path: pathlib.Path, threads: int, library: str | None = None):
    """Returns an onnxruntime session of a file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if library is not None:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _named(sample, names):
    """Returns the sample as a dict of arrays by name."""
    return dict(sample) if isinstance(sample, dict) else dict.fromkeys(names, sample)


def _saved_model(path, sample, threads, library):
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    inputs = {name: tf.constant(value) for name, value in _named(sample, serve.structured_input_signature[1]).items()}
    return lambda: serve(**inputs)


def _onnx(path, sample, threads, library):
    session = onnx_session(path, threads, library)
    names = [value.name for value in session.get_outputs()]
    inputs = _named(sample, [value.name for value in session.get_inputs()])
    return lambda: dict(zip(names, session.run(names, inputs)))


def _litert(path, sample, threads, library):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads or None)
    runner = interpreter.get_signature_runner("serving_default")
    inputs = _named(sample, runner.get_input_details())
    return lambda: runner(**inputs)
