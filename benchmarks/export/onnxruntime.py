# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.onnxruntime`: one op in onnxruntime, in every form it is exported in, beside the TensorFlow op.

Portable ops; native ops without our library, which run their bodies; native ops with it, which run our kernels; and the
compiled op in TensorFlow. Milliseconds of a call, and what is meant to be reached. onnxruntime gets as many threads as
TensorFlow, which the variable TF_NUM_INTRAOP_THREADS tells (otherwise one for each core).
"""

import argparse
import json
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from keras_dynfilter import export, implementation, ops

# Name -> the op, its options, and the shapes of its operands.
CASES = {
    "ddf2d": (ops.ddf2d, {}, ((1, 200, 300, 256), (1, 3, 3, 256), (1, 200, 300, 9))),
    "local_filter2d": (ops.local_filter2d, {"kernel_size": 9}, ((1, 256, 256, 1), (1, 256, 256, 81))),
}
TF, PORTABLE, BODY, KERNEL = "TF op", "portable", "native, stock", "native, library"
MOST_OF_TF, LEAST_SPEEDUP = 1.15, 5.0


class Apply(keras.layers.Layer):
    """Calls an op on its inputs."""

    def __init__(self, op, options, **kwargs):
        super().__init__(**kwargs)
        self.op, self.options = op, options

    def call(self, inputs):
        return self.op(*inputs, **self.options)


def operands(shapes, shrink):
    """Random operands; `shrink` divides height and width of the images."""
    rng = np.random.default_rng(0)
    shapes = [(n, h // shrink, w // shrink, c) if h > 3 else (n, h, w, c) for n, h, w, c in shapes]
    return [rng.standard_normal(shape, "float32") for shape in shapes]


def session(model, mode, library, threads):
    """An onnxruntime session of the model, exported with the ops of `mode`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if library is not None:
        options.register_custom_ops_library(library)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        export.export(model, path, format="onnx", ops=mode, validate=False, verbose=False)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bound(onnx_session, arrays):
    """A call of the session that copies neither operands nor result."""
    import onnxruntime

    binding = onnx_session.io_binding()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    for given, value in zip(onnx_session.get_inputs(), values):
        binding.bind_ortvalue_input(given.name, value)

    def call():
        binding.bind_output(onnx_session.get_outputs()[0].name, "cpu")
        onnx_session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return call


def calls(name, shrink, threads):
    """By form: a function without arguments that computes the case, and returns what has a method `numpy`."""
    op, options, shapes = CASES[name]
    arrays = operands(shapes, shrink)
    inputs = [keras.Input((None, None, array.shape[-1]), name=f"operand_{i}") for i, array in enumerate(arrays)]
    if name == "ddf2d":
        inputs[1] = keras.Input(arrays[1].shape[1:], name="operand_1")
    model = keras.Model(inputs, Apply(op, options)(inputs))
    tensors = [tf.constant(array) for array in arrays]
    with implementation("native"):
        function = tf.function(lambda: op(*tensors, **options)).get_concrete_function()
    library = export.ort_library()
    return {
        TF: function,
        PORTABLE: bound(session(model, "portable", None, threads), arrays),
        BODY: bound(session(model, "native", None, threads), arrays),
        KERNEL: bound(session(model, "native", library, threads), arrays),
    }


def measured(name, shrink, threads, budget):
    """Milliseconds by form; all forms must compute the same."""
    forms = calls(name, shrink, threads)
    expected = forms[TF]().numpy()
    for form, call in forms.items():
        np.testing.assert_allclose(call().numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=form)
    return timing.in_turns(forms, budget)


def verdicts(name, ms):
    """What is meant to be reached, and whether it is."""
    of_tf, speedup = ms[KERNEL] / ms[TF], min(ms[PORTABLE], ms[BODY]) / ms[KERNEL]
    yield f"{name}: {of_tf:.2f} of the TF op, at most {MOST_OF_TF}: {'met' if of_tf <= MOST_OF_TF else 'MISSED'}"
    verdict = "met" if speedup >= LEAST_SPEEDUP else "MISSED"
    yield f"{name}: {speedup:.1f} times faster than without the library, at least {LEAST_SPEEDUP}: {verdict}"


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export.onnxruntime", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--shrink", type=int, default=1, help="divides height and width, to try the benchmark out")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each form")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/onnxruntime.json", help="the figures go here")
    args = parser.parse_args(arguments)
    if args.shrink < 1:
        parser.error(f"Expected --shrink to be above zero. Received: {args.shrink}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))

    rows = {}
    print(f"{timing.cpu()}, {threads} threads; milliseconds of a call\n")
    print(f"{'':<16}" + "".join(f"{form:>17}" for form in (TF, PORTABLE, BODY, KERNEL)))
    for name in args.only:
        rows[name] = ms = measured(name, args.shrink, threads, args.seconds)
        print(f"{name:<16}" + "".join(f"{value:>17.2f}" for value in ms.values()), flush=True)
    print("", *(line for name, ms in rows.items() for line in verdicts(name, ms)), sep="\n")
    settings = {"cpu": timing.cpu(), "threads": threads, "shrink": args.shrink}
    args.json.write_text(json.dumps({**settings, "ms": rows}, indent=2) + "\n")
    print(f"\nFigures: {args.json}")


if __name__ == "__main__":
    main()
