# SPDX-License-Identifier: Apache-2.0
"""Runs an exported file in a fresh process, on the stock runtime: `python runner.py REQUEST.json`.

keras_dynfilter cannot be imported in this process, so a file that runs here does not need it.
"""

import json
import pathlib
import sys
import time

import numpy as np

sys.path[:] = [path for path in sys.path if path != str(pathlib.Path(__file__).parent)]
sys.modules["keras_dynfilter"] = None  # type: ignore[assignment]  # an import raises

REPEATS = 3


def onnxruntime(request):
    """Returns a function that runs the file on arrays by name, and a description of the file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    for library in request["libraries"]:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs):
        return dict(zip(names, session.run(names, inputs)))

    inputs = {value.name: _open_axes(value.shape) for value in session.get_inputs()}
    return run, {"runtime": f"onnxruntime {ort.__version__} on the CPU", "inputs": inputs, "outputs": names}


def tensorflow(request):
    """Does the same as `onnxruntime` for a SavedModel."""
    import tensorflow as tf

    for library in request["libraries"]:
        tf.load_op_library(library)
    loaded = tf.saved_model.load(request["path"])
    serve = loaded.signatures["serving_default"]
    specs = serve.structured_input_signature[1]

    def run(inputs):
        outputs = serve(**{name: tf.cast(value, specs[name].dtype) for name, value in inputs.items()})
        return {name: _array(value) for name, value in outputs.items()}

    inputs = {name: _open_axes(spec.shape.as_list()) for name, spec in specs.items()}
    description = {"runtime": f"tensorflow {tf.__version__} on the CPU", "inputs": inputs}
    return run, {**description, "outputs": list(serve.structured_outputs)}


def litert(request):
    """Does the same as `onnxruntime` for a LiteRT file."""
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


RUNTIMES = {"onnxruntime": onnxruntime, "tensorflow": tensorflow, "ai_edge_litert": litert}


def _declared_shape(details):
    """The declared shape of an input, with -1 for open sizes. A file without open sizes has no shape signature."""
    signature = details["shape_signature"]
    return signature if len(signature) else details["shape"]


def _array(tensor):
    import tensorflow as tf

    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def _open_axes(shape):
    """The shape with None in place of symbolic sizes."""
    return [size if isinstance(size, int) else None for size in shape]


def main(request_path):
    """Runs all cases of a request and writes their outputs, and a description of the file, next to the request."""
    folder = pathlib.Path(request_path).parent
    request = json.loads(pathlib.Path(request_path).read_text())
    run, result = RUNTIMES[request["runtime"]](request)
    result["seconds"] = []
    for index in range(request["cases"]):
        with np.load(folder / f"inputs_{index}.npz") as archive:
            inputs = dict(archive)
        outputs, seconds = None, []
        for _ in range(REPEATS):
            start = time.perf_counter()
            outputs = run(inputs)
            seconds.append(time.perf_counter() - start)
        result["seconds"].append(min(seconds))
        np.savez(folder / f"outputs_{index}.npz", **outputs)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
