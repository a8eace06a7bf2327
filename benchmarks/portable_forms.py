# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.portable_forms`: the ways to write a dynamic filter in standard ops, in onnxruntime and LiteRT.

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

from benchmarks import measure
from keras_dynfilter.export import _litert, _onnx
from keras_dynfilter.export._trace import Traced
from keras_dynfilter.export.report import first_line
from keras_dynfilter.ops import _composite
from keras_dynfilter.ops.geometry import Geometry

# Name -> weight, image, window, heads.
CASES = {
    "local 9x9 softmax, 1 channel": ("softmax", (1, 256, 256, 1), 9, 1),
    "local 9x9, 1 channel": ("spatial", (1, 256, 256, 1), 9, 1),
    "local 3x3, 1 channel": ("spatial", (1, 256, 256, 1), 3, 1),
    "local 5x5, 8 channels": ("spatial", (1, 64, 64, 8), 5, 1),
    "local 3x3, 64 channels": ("spatial", (1, 56, 56, 64), 3, 1),
    "local 3x3, 64 channels, 4 heads": ("spatial", (1, 56, 56, 64), 3, 4),
    "depthwise 3x3, 64 channels": ("channel", (1, 56, 56, 64), 3, 1),
    "ddf2d 3x3, 64 channels, small": ("mul", (1, 14, 14, 64), 3, 1),
    "ddf2d 3x3, 64 channels": ("mul", (1, 56, 56, 64), 3, 1),
    "ddf2d 5x5, 64 channels": ("mul", (1, 56, 56, 64), 5, 1),
    "ddf2d 3x3, 256 channels": ("mul", (1, 200, 300, 256), 3, 1),
}


def masked(inputs, spatial, channel, weight, geometry):
    """Slices accumulated, with a mask for every product."""
    if channel is not None:
        return _composite.gathered(inputs, spatial, channel, weight, geometry)
    ones = tf.ones([tf.shape(inputs)[0], *geometry.kernel_size, inputs.shape[-1]])
    if weight == "softmax":
        spatial = tf.nn.softmax(spatial)
    return _composite.gathered(inputs, spatial, ones, "mul", geometry)


def windows(inputs, spatial, weight, geometry):
    """Filters and windows `[batch, height, width, taps]` and `[batch, height, width, taps, channels]`."""
    patches = _composite.windows(inputs, geometry)
    shape = [*_composite.sizes(patches)[:3], geometry.taps, inputs.shape[-1]]
    return _composite._skipping(spatial, weight, inputs, geometry), tf.reshape(patches, shape)


def product(inputs, spatial, channel, weight, geometry):
    spatial, patches = windows(inputs, spatial, weight, geometry)
    return tf.reduce_sum(tf.expand_dims(spatial, -1) * patches, axis=-2)


def matmul(inputs, spatial, channel, weight, geometry):
    spatial, patches = windows(inputs, spatial, weight, geometry)
    return tf.squeeze(tf.matmul(tf.expand_dims(spatial, -2), patches), -2)


def einsum(inputs, spatial, channel, weight, geometry):
    return tf.einsum("nhwt,nhwtc->nhwc", *windows(inputs, spatial, weight, geometry))


def one_hot(inputs, spatial, channel, weight, geometry):
    """Windows by a convolution whose kernels have a single one each: an infinite pixel spoils whole windows."""
    kernels = np.eye(geometry.taps, dtype="float32").reshape(*geometry.kernel_size, 1, geometry.taps)
    patches = tf.nn.conv2d(_composite.pad(inputs, geometry), kernels, 1, "VALID")
    spatial = _composite._skipping(spatial, weight, inputs, geometry)
    return tf.reduce_sum(spatial * patches, axis=-1, keepdims=True)


def folded(inputs, spatial, channel, weight, geometry):
    """A depth-wise convolution over the channels of all samples."""
    batch, height, width, channels = _composite.sizes(inputs)
    image = tf.reshape(tf.transpose(inputs, [1, 2, 0, 3]), [1, height, width, batch * channels])
    kernel = tf.reshape(tf.transpose(channel, [1, 2, 0, 3]), [*geometry.kernel_size, batch * channels, 1])
    output = tf.nn.depthwise_conv2d(_composite.pad(image, geometry), kernel, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(output, [height, width, batch, channels]), [2, 0, 1, 3])


PATCHES, GATHERED, SCATTERED = "windows, sum", "slices", "canvas"
ONE_CHANNEL = {
    PATCHES: lambda x, s, c, weight, geometry: _composite.patches(x, s, weight, geometry),
    GATHERED: _composite.gathered,
    "slices, masked": masked,
    "one-hot convolution": one_hot,
}
CHANNELS = {
    GATHERED: _composite.gathered,
    "slices, masked": masked,
    "windows, sum": product,
    "windows, matmul": matmul,
    "windows, einsum": einsum,
}
FACTORED = {SCATTERED: _composite.scattered, "slices, masked": masked}


def forms(name):
    """The forms of a case by name; the one in use comes first."""
    weight, shape, _, heads = CASES[name]
    if weight in ("spatial", "softmax"):
        found = ONE_CHANNEL if shape[-1] == 1 else CHANNELS
        return {form: found[form] for form in list(found)[: 2 if heads > 1 else None]}
    return {**FACTORED, "depth-wise, folded": folded} if weight == "channel" else FACTORED


def traced(name, form, shrink):
    """The case as a graph, and its operands by name."""
    weight, (batch, height, width, channels), window, heads = CASES[name]
    height, width = max(height // shrink, 1), max(width // shrink, 1)
    geometry = Geometry.make(window, heads=heads)
    specs = {"inputs": tf.TensorSpec((None, None, None, channels), name="inputs")}
    if weight != "channel":
        specs["spatial"] = tf.TensorSpec((None, None, None, heads * geometry.taps), name="spatial")
    if weight in ("channel", "mul"):
        specs["channel"] = tf.TensorSpec((None, window, window, channels), name="channel")
    rng = np.random.default_rng(0)
    arrays = {
        key: rng.standard_normal([a or b for a, b in zip(spec.shape, (batch, height, width, channels))], "float32")
        for key, spec in specs.items()
    }

    def compute(*operands):
        given = dict(zip(specs, operands))
        output = form(given["inputs"], given.get("spatial"), given.get("channel"), weight, geometry)
        return {"outputs": tf.identity(output)}

    function = tf.function(compute, input_signature=list(specs.values()), autograph=False)
    return Traced(None, function, function.get_concrete_function()), arrays


def onnxruntime(graph):
    """A function of operands by name, and the number of nodes."""
    import onnxruntime as ort

    model = _onnx.convert(graph.function, list(graph.function.input_signature), 18)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(["outputs"], arrays)[0], len(model.graph.node)


def litert(graph):
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "form.tflite"
        nodes = _litert.write(graph, path, None, "float32", None)
        runner = Interpreter(model_content=path.read_bytes(), num_threads=1).get_signature_runner()
    return lambda arrays: runner(**arrays)["outputs"], sum(nodes.values())


RUNTIMES = {"onnxruntime": onnxruntime, "litert": litert}


def exact(call, name, arrays):
    """Whether infinite filters beside the image, and an infinite pixel, do what they do in the formula."""
    weight, _, window, heads = CASES[name]
    spoiled = {key: array.copy() for key, array in arrays.items()}
    for key, array in spoiled.items():
        if (weight, key) != ("softmax", "spatial"):
            array.reshape(-1)[0] = np.inf
    operands = [None if key not in spoiled else tf.constant(spoiled[key]) for key in ("inputs", "spatial", "channel")]
    results = call(spoiled), masked(*operands, weight, Geometry.make(window, heads=heads)).numpy()
    found, wanted = (np.where(np.isfinite(result), 0.0, result) for result in results)
    return bool(np.array_equal(found, wanted, equal_nan=True))


def measured(name, runtime, shrink, rounds):
    """Rows of the forms of a case in a runtime; all must compute the same, and one that does not convert says so."""
    rows, calls, expected = {}, {}, None
    for form, function in forms(name).items():
        try:
            graph, arrays = traced(name, function, shrink)
            calls[form], nodes = RUNTIMES[runtime](graph)
            found = calls[form](arrays)
        except Exception as error:  # whatever the converter or the runtime does not like about a form
            calls.pop(form, None)
            rows[form] = {"failed": first_line(error)[:200]}
            continue
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=form)
        rows[form] = {"nodes": nodes, "exact": exact(calls[form], name, arrays), "ms": float("inf")}
    for _ in range(rounds):
        for form, call in calls.items():
            begin = time.thread_time()
            call(arrays)
            rows[form]["ms"] = min(rows[form]["ms"], 1e3 * (time.thread_time() - begin))
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.portable_forms", description=__doc__.split("\n\n")[0])
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
    print(f"{measure.cpu()}, 1 thread; milliseconds of a call")
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
    args.json.write_text(json.dumps({"cpu": measure.cpu(), "shrink": args.shrink, "cases": table}, indent=2) + "\n")
    print(f"\nFigures: {args.json}")


if __name__ == "__main__":
    main()
