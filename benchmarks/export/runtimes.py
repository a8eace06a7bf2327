# SPDX-License-Identifier: Apache-2.0
"""Exported files as functions, on the runtime of their format."""

import tensorflow as tf


def call_of(kind, path, sample, threads, library=None):
    """A function without arguments that runs an exported file on a sample, and returns its outputs by name.

    Args:
        kind: The format.
        path: The file or folder.
        sample: An array, or arrays by name.
        threads: Of the call; 0: as many as the runtime takes by itself. TensorFlow's are those of the process.
        library: Path of our library for onnxruntime, or None.
    """
    return {"saved_model": _saved_model, "onnx": _onnx, "litert": _litert}[kind](path, sample, threads, library)


def _named(sample, names):
    return dict(sample) if isinstance(sample, dict) else dict.fromkeys(names, sample)


def _saved_model(path, sample, threads, library):
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    given = {name: tf.constant(value) for name, value in _named(sample, serve.structured_input_signature[1]).items()}
    return lambda: serve(**given)


def _onnx(path, sample, threads, library):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if library is not None:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    given = _named(sample, [value.name for value in session.get_inputs()])
    return lambda: dict(zip(names, session.run(names, given)))


def _litert(path, sample, threads, library):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads or None)
    runner = interpreter.get_signature_runner("serving_default")
    given = _named(sample, runner.get_input_details())
    return lambda: runner(**given)
