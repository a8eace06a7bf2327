# SPDX-License-Identifier: Apache-2.0
"""Measures the time of single ops in onnxruntime, in every exported form, and of the compiled op in TensorFlow.

The forms are: portable ops; native ops without the library of ops, which run their function bodies; and native ops with
the library, which run the compiled kernels. onnxruntime and TensorFlow use the same number of threads:
TF_NUM_INTRAOP_THREADS, or one per core.
"""

import json
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import add_json, create_file, new_parser
from benchmarks.export.runtimes import onnx_session, threads_from_environment
from benchmarks.targets import Target, print_targets
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_float, positive_int
from keras_dynfilter import export, implementation, ops

# By name: the op, its options, and the shapes of its operands.
CASES = {
    "ddf2d": (ops.ddf2d, {}, ((1, 200, 300, 256), (1, 3, 3, 256), (1, 200, 300, 9))),
    "local_filter2d": (ops.local_filter2d, {"kernel_size": 9}, ((1, 256, 256, 1), (1, 256, 256, 81))),
}
TF, PORTABLE, BODY, KERNEL = "TF op", "portable", "native, stock", "native, library"
MAX_RATIO_TO_TF = 1.15  # time with the library, relative to the op in TensorFlow
MIN_SPEEDUP = 5.0  # time of the faster form without the library, relative to the time with it


class Apply(keras.layers.Layer):
    """Calls an op on its inputs."""

    def __init__(self, op, options, **kwargs):
        super().__init__(**kwargs)
        self.op, self.options = op, options

    def call(self, inputs):
        return self.op(*inputs, **self.options)


def operands(shapes, shrink):
    """Draws operands. `shrink` divides the height and width of the images."""
    rng = np.random.default_rng(0)
    shapes = [(n, h // shrink, w // shrink, c) if h > 3 else (n, h, w, c) for n, h, w, c in shapes]
    return [rng.standard_normal(shape, "float32") for shape in shapes]


def session(model, mode, library, threads):
    """Exports a model with `ops=mode`. Returns an onnxruntime session of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        export.export(model, path, format="onnx", ops=mode, validate=False, verbose=False)
        return onnx_session(path, threads, library)


def bound_call(session, arrays):
    """Returns a function that runs the session without copies of the operands and the result."""
    import onnxruntime

    binding = session.io_binding()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    for argument, value in zip(session.get_inputs(), values):
        binding.bind_ortvalue_input(argument.name, value)

    def call():
        binding.bind_output(session.get_outputs()[0].name, "cpu")
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return call


def calls(name, shrink, threads):
    """Returns the calls of a case by form. Each call returns an object with a method `numpy`."""
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
        PORTABLE: bound_call(session(model, "portable", None, threads), arrays),
        BODY: bound_call(session(model, "native", None, threads), arrays),
        KERNEL: bound_call(session(model, "native", library, threads), arrays),
    }


def measure(name, shrink, threads, seconds):
    """Measures a case. Returns milliseconds by form. Raises an AssertionError if the forms differ in their results."""
    forms = calls(name, shrink, threads)
    expected = forms[TF]().numpy()
    for form, call in forms.items():
        np.testing.assert_allclose(call().numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=form)
    return timing.in_turns(forms, seconds)


def report_targets(name, ms):
    """Returns a line for each target."""
    of_tf = Target(f"{name}: {KERNEL} / {TF}", at_most=MAX_RATIO_TO_TF)
    speedup = Target(f"{name}: faster form without the library / {KERNEL}", at_least=MIN_SPEEDUP)
    return [of_tf.report(ms[KERNEL] / ms[TF]), speedup.report(min(ms[PORTABLE], ms[BODY]) / ms[KERNEL])]


def parse(arguments=None):
    parser = new_parser("benchmarks.export.onnxruntime", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=list(CASES), help="only these ops")
    add("--shrink", type=positive_int, default=1, help="divides height and width, to try the benchmark out")
    add("--seconds", type=positive_float, default=3.0, help="approximate time for each form")
    add_json(parser, "outputs/onnxruntime.json")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    create_file(args.json)
    threads = threads_from_environment()
    print(f"{processor_name()}, {threads} threads; milliseconds of a call\n")
    print(f"{'':<16}" + "".join(f"{form:>17}" for form in (TF, PORTABLE, BODY, KERNEL)))
    rows = {}
    for name in args.only:
        rows[name] = ms = measure(name, args.shrink, threads, args.seconds)
        print(f"{name:<16}" + "".join(f"{value:>17.2f}" for value in ms.values()), flush=True)
    print_targets(line for name, ms in rows.items() for line in report_targets(name, ms))
    settings = {"cpu": processor_name(), "threads": threads, "shrink": args.shrink}
    args.json.write_text(json.dumps({**settings, "ms": rows}, indent=2) + "\n")
    print(f"\nResults: {args.json}")


if __name__ == "__main__":
    main()
