# SPDX-License-Identifier: Apache-2.0
"""Runs an exported file in a fresh process, on the stock runtime: `python runner.py REQUEST.json`.

keras_dynfilter cannot be imported in this process, so a file that runs here does not need it.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Python puts the folder of a script first, so modules such as `inputs` would hide other modules of the same name.
sys.path[:] = [path for path in sys.path if path != str(pathlib.Path(__file__).parent)]
sys.modules["keras_dynfilter"] = None  # type: ignore[assignment]  # every import of it raises an ImportError

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]  # inputs and outputs by name

REPEATS = 3  # runs of each case; the fastest one counts


def load_onnx(request: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Loads an ONNX file. Returns a function from inputs to outputs, arrays by name, and a description of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for library in request["libraries"]:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs):
        return dict(zip(names, session.run(names, inputs)))

    inputs = {value.name: _sizes(value.shape) for value in session.get_inputs()}
    return run, {"runtime": f"onnxruntime {onnxruntime.__version__} on the CPU", "inputs": inputs, "outputs": names}


def load_saved_model(request: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Loads a SavedModel. Returns what `load_onnx` returns."""
    import tensorflow as tf

    for library in request["libraries"]:
        tf.load_op_library(library)
    loaded = tf.saved_model.load(request["path"])
    serve = loaded.signatures["serving_default"]
    specs = serve.structured_input_signature[1]

    def run(inputs):
        outputs = serve(**{name: tf.cast(value, specs[name].dtype) for name, value in inputs.items()})
        return {name: _array(value) for name, value in outputs.items()}

    inputs = {name: _sizes(spec.shape.as_list()) for name, spec in specs.items()}
    description = {"runtime": f"tensorflow {tf.__version__} on the CPU", "inputs": inputs}
    return run, {**description, "outputs": list(serve.structured_outputs)}


def load_litert(request: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Loads a LiteRT file. Returns what `load_onnx` returns."""
    import importlib.metadata

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=request["path"])
    signature = interpreter.get_signature_runner("serving_default")

    def run(inputs):
        return signature(**inputs)

    details = signature.get_input_details()
    inputs = {name: [None if n < 0 else int(n) for n in _declared_shape(value)] for name, value in details.items()}
    version = importlib.metadata.version("ai-edge-litert")
    description = {"runtime": f"LiteRT {version} on the CPU", "inputs": inputs}
    return run, {**description, "outputs": list(signature.get_output_details())}


# Name of the runtime in the table of formats -> function that loads a file.
RUNTIMES = {"onnxruntime": load_onnx, "tensorflow": load_saved_model, "ai_edge_litert": load_litert}


def _declared_shape(details):
    """Returns the declared shape of an input, with -1 for open sizes. Without open sizes `shape_signature` is empty."""
    signature = details["shape_signature"]
    return signature if len(signature) else details["shape"]


def _array(tensor):
    """Returns a tensor as an array. NumPy files cannot store bfloat16, so it becomes float32."""
    import tensorflow as tf

    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def _sizes(shape):
    """Returns the sizes of a shape, with None in place of the names of open axes."""
    return [size if isinstance(size, int) else None for size in shape]


def main(request_path: str) -> None:
    """Runs all cases of a request. Writes their outputs and a description of the file to the folder of the request."""
    folder = pathlib.Path(request_path).parent
    request = json.loads(pathlib.Path(request_path).read_text())
    run, result = RUNTIMES[request["runtime"]](request)
    result["seconds"] = []
    for index in range(request["cases"]):
        with np.load(folder / f"inputs_{index}.npz") as archive:
            inputs = dict(archive)
        outputs: dict[str, Any] = {}  # NumPy's hints reject arrays: one could be named `allow_pickle`
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            outputs = run(inputs)
            seconds.append(time.perf_counter() - start)
        result["seconds"].append(min(seconds))
        np.savez(folder / f"outputs_{index}.npz", **outputs)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
