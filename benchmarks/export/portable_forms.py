# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.portable_forms`: the ways to write a dynamic filter in standard ops, in onnxruntime and LiteRT.

Milliseconds of one thread on the processor, which other work on the machine disturbs least; all forms of a case run in
turns, and the least of the rounds counts. `used` is what `keras_dynfilter.ops` composes. A form spoils neighbours if an
infinite filter beside the image, or an infinite pixel, becomes NaN where it should not. Graphs are of open batch,
height and width.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.ops.composite_forms import CASES, masked
from keras_dynfilter.export.report import first_line
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.writers import litert as litert_module
from keras_dynfilter.export.writers import tf2onnx


def traced(case, form, shrink):
    """The case as a graph, and its operands by name."""
    specs, sizes = case.specs(), case.sizes(shrink)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal([a or b for a, b in zip(spec.shape, (*sizes[name], *spec.shape[3:]))], "float32")
        for name, spec in specs.items()
    }

    def compute(*operands):
        return {"outputs": tf.identity(case.compute(form, dict(zip(specs, operands))))}

    function = tf.function(compute, input_signature=list(specs.values()), autograph=False)
    return Traced(None, function, function.get_concrete_function()), arrays


def onnxruntime(graph):
    """A function of operands by name, and the number of nodes."""
    import onnxruntime as ort

    model = tf2onnx.convert(graph.function, list(graph.function.input_signature), 18)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(["outputs"], arrays)[0], len(model.graph.node)


def litert(graph):
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "form.tflite"
        nodes = litert_module.write(graph, path, None, "float32", None)
        runner = Interpreter(model_content=path.read_bytes(), num_threads=1).get_signature_runner()
    return lambda arrays: runner(**arrays)["outputs"], sum(nodes.values())


RUNTIMES = {"onnxruntime": onnxruntime, "litert": litert}


def exact(call, case, arrays):
    """Whether infinite filters beside the image, and an infinite pixel, do what they do in the formula."""
    spoiled = {name: array.copy() for name, array in arrays.items()}
    for name, array in spoiled.items():
        if (case.weight, name) != ("softmax", "spatial"):
            array.reshape(-1)[0] = np.inf
    results = call(spoiled), case.compute(masked, {name: tf.constant(value) for name, value in spoiled.items()}).numpy()
    found, wanted = (np.where(np.isfinite(result), 0.0, result) for result in results)
    return bool(np.array_equal(found, wanted, equal_nan=True))


def measured(name, runtime, shrink, rounds):
    """Rows of the forms of a case in a runtime; all must compute the same, and one that does not convert says so."""
    case, rows, calls, expected = CASES[name], {}, {}, None
    for form, function in case.forms().items():
        try:
            graph, arrays = traced(case, function, shrink)
            calls[form], nodes = RUNTIMES[runtime](graph)
            found = calls[form](arrays)
        except Exception as error:  # whatever the converter or the runtime does not like about a form
            calls.pop(form, None)
            rows[form] = {"failed": first_line(error)[:200]}
            continue
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=form)
        rows[form] = {"nodes": nodes, "ms": float("inf")}
        if "filters" not in arrays:  # a bank mixes all that a window holds
            rows[form]["exact"] = exact(calls[form], case, arrays)
    for _ in range(rounds):
        for form, call in calls.items():
            begin = time.thread_time()
            call(arrays)
            rows[form]["ms"] = min(rows[form]["ms"], 1e3 * (time.thread_time() - begin))
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export.portable_forms", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--shrink", type=int, default=1, help="divides height and width, to try the benchmark out")
    parser.add_argument("--rounds", type=int, default=15, help="how often each form runs")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/portable_forms.json", help="the figures go here")
    args = parser.parse_args(arguments)
    if min(args.shrink, args.rounds) < 1:
        parser.error("Expected --shrink and --rounds to be above zero")
    args.json.parent.mkdir(parents=True, exist_ok=True)

    table = {}
    print(f"{timing.cpu()}, 1 thread; milliseconds of a call")
    for name in args.only:
        for runtime in args.runtimes:
            rows = measured(name, runtime, args.shrink, args.rounds)
            used = next(iter(rows))
            table.setdefault(name, {})[runtime] = {"used": used, "forms": rows}
            print(f"\n{name}, {runtime}")
            for form, row in rows.items():
                mark, spoils = "<- used" if form == used else "", "" if row.get("exact", True) else "spoils neighbours"
                cells = row.get("failed") or f"{row['ms']:9.2f} ms {row['nodes']:5} nodes  {spoils}{mark}"
                print(f"  {form:<20} {cells}", flush=True)
            for form, row in rows.items():
                if row.get("exact", "failed" not in row) and row["ms"] < 0.9 * rows[used]["ms"]:
                    print(f"  FASTER than what is used: {form}", flush=True)
    args.json.write_text(json.dumps({"cpu": timing.cpu(), "shrink": args.shrink, "cases": table}, indent=2) + "\n")
    print(f"\nFigures: {args.json}")


if __name__ == "__main__":
    main()
