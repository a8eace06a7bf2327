# SPDX-License-Identifier: Apache-2.0
"""Measures the time of several forms of dynamic filters in standard ops, in onnxruntime and LiteRT.

The benchmark measures milliseconds of processor time of one thread, because other work on the machine disturbs it
least. All forms of a case run in turns, and the fastest round counts. `used` marks the form that `keras_dynfilter.ops`
uses. A form spoils neighbours if an infinite pixel, or an infinite filter value outside the image, makes values NaN
that do not depend on it. The graphs have unknown batch, height and width.
"""

import json
import pathlib
import tempfile
import time

import numpy as np
import tensorflow as tf

from benchmarks.command_line import add_json, create_file, new_parser
from benchmarks.ops.composite_forms import CASES, masked_slices
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_int
from keras_dynfilter.export.report import first_line
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.writers import litert as litert_writer
from keras_dynfilter.export.writers import tf2onnx


def trace(case, form, shrink):
    """Returns the graph of a form of a case, and operands by name."""
    specs, sizes = case.specs(), case.operand_sizes(shrink)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal([a or b for a, b in zip(spec.shape, (*sizes[name], *spec.shape[3:]))], "float32")
        for name, spec in specs.items()
    }

    def compute(*operands):
        return {"outputs": tf.identity(case.compute(form, dict(zip(specs, operands))))}

    function = tf.function(compute, input_signature=list(specs.values()), autograph=False)
    return Traced(None, function, function.get_concrete_function(), "portable"), arrays


def load_onnxruntime(graph):
    """Converts a graph to ONNX. Returns a function of a dict of operands, and the number of nodes."""
    import onnxruntime

    model = tf2onnx.convert(graph.function, list(graph.function.input_signature), 18)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(["outputs"], arrays)[0], len(model.graph.node)


def load_litert(graph):
    """Converts a graph to LiteRT. Returns a function of a dict of operands, and the number of operators."""
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "form.tflite"
        nodes = litert_writer.write(graph, path, None, "float32", None)
        runner = Interpreter(model_content=path.read_bytes(), num_threads=1).get_signature_runner()
    return lambda arrays: runner(**arrays)["outputs"], sum(nodes.values())


RUNTIMES = {"onnxruntime": load_onnxruntime, "litert": load_litert}


def keeps_neighbours(call, case, arrays):
    """Returns whether infinite filter values outside the image and an infinite pixel leave other values unchanged."""
    spoiled = {name: array.copy() for name, array in arrays.items()}
    for name, array in spoiled.items():
        if (case.kind, name) != ("softmax", "spatial"):
            array.reshape(-1)[0] = np.inf
    expected = case.compute(masked_slices, {name: tf.constant(array) for name, array in spoiled.items()}).numpy()
    outputs, expected = (np.where(np.isfinite(result), 0.0, result) for result in (call(spoiled), expected))
    return bool(np.array_equal(outputs, expected, equal_nan=True))


def measure(name, runtime, shrink, rounds):
    """Measures the forms of a case in a runtime. Returns their rows by name.

    The row of a form that cannot be converted contains the reason. The function raises an AssertionError if the forms
    differ in their results.
    """
    case, rows, calls, expected = CASES[name], {}, {}, None
    for form, function in case.forms().items():
        try:
            graph, arrays = trace(case, function, shrink)
            calls[form], nodes = RUNTIMES[runtime](graph)
            outputs = calls[form](arrays)
        except Exception as error:  # any error of the converter or the runtime
            calls.pop(form, None)
            rows[form] = {"failed": first_line(error)[:200]}
            continue
        expected = outputs if expected is None else expected
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=form)
        rows[form] = {"nodes": nodes, "ms": float("inf")}
        if "filters" not in arrays:  # filters that mix channels cannot be exact: they mix all values of a window
            rows[form]["exact"] = keeps_neighbours(calls[form], case, arrays)
    for _ in range(rounds):
        for form, call in calls.items():
            begin = time.thread_time()
            call(arrays)
            rows[form]["ms"] = min(rows[form]["ms"], 1e3 * (time.thread_time() - begin))
    return rows


def print_rows(name, runtime, rows, used):
    print(f"\n{name}, {runtime}")
    for form, row in rows.items():
        mark, spoils = "<- used" if form == used else "", "" if row.get("exact", True) else "spoils neighbours"
        result = row.get("failed") or f"{row['ms']:9.2f} ms {row['nodes']:5} nodes  {spoils}{mark}"
        print(f"  {form:<20} {result}", flush=True)
    for form, row in rows.items():
        if row.get("exact", "failed" not in row) and row["ms"] < 0.9 * rows[used]["ms"]:
            print(f"  FASTER than the form in use: {form}", flush=True)


def parse(arguments=None):
    parser = new_parser("benchmarks.export.portable_forms", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="cases: " + "; ".join(CASES))
    add("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="only these runtimes")
    add("--shrink", type=positive_int, default=1, help="divides height and width, to try the benchmark out")
    add("--rounds", type=positive_int, default=15, help="number of times that each form runs")
    add_json(parser, "outputs/portable_forms.json")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    create_file(args.json)
    table = {}
    print(f"{processor_name()}, 1 thread; milliseconds of a call")
    for name in args.only:
        for runtime in args.runtimes:
            rows = measure(name, runtime, args.shrink, args.rounds)
            used = next(iter(rows))
            table.setdefault(name, {})[runtime] = {"used": used, "forms": rows}
            print_rows(name, runtime, rows, used)
    args.json.write_text(json.dumps({"cpu": processor_name(), "shrink": args.shrink, "cases": table}, indent=2) + "\n")
    print(f"\nResults: {args.json}")


if __name__ == "__main__":
    main()
