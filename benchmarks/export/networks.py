# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.networks`: the networks in every format: megabytes, milliseconds of a call, largest error.

Weights are random: they change neither size nor time. One image or sequence at a time, on as many threads as there are
cores. The error is that of the file beside the Keras model, on the same random input, relative to the largest magnitude
of each output. Markdown and JSON lines are written.
"""

import argparse
import json
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.export import runtimes
from benchmarks.export.ddf_resnet import awake
from keras_dynfilter import export, implementation, layers, models
from keras_dynfilter.export.report import first_line


def ddf_up_net(image_shape=(64, 64, 3), channels=32):
    """Halves an image twice and doubles it twice, by DDF-Up, which the features of the larger size guide."""
    image = keras.Input(image_shape, name="image")

    def convolution(x, strides, name):
        return keras.layers.Conv2D(channels, 3, strides, padding="same", activation="relu", name=name)(x)

    full = convolution(image, 1, "full")
    half = convolution(full, 2, "half")
    x = convolution(half, 2, "quarter")
    for guide, name in ((half, "up_to_half"), (full, "up_to_full")):
        x = layers.DDFUp2D(2, name=name)([x, guide])
    return keras.Model(image, keras.layers.Conv2D(1, 1, name="prediction")(x), name="ddf_up_net")


# Name -> a function that makes the network. The package has no network with DDF-Up: that one is made here.
NETWORKS = {
    "moving MNIST": models.dfn_moving_mnist,
    "steerable": lambda: models.dfn_steerable(image_shape=(64, 64, 1)),
    "stereo": models.dfn_stereo,
    "DDF-ResNet50": lambda: awake(models.ddf_resnet50(classifier_activation=None)),
    "DDF-Up net": ddf_up_net,
    "repository MNIST": models.repository_mnist,
}
# Name -> options of the export, and whether onnxruntime gets our library.
FORMS = {
    "SavedModel": (dict(format="saved_model"), False),
    "SavedModel, native ops": (dict(format="saved_model", ops="native"), False),
    "ONNX": (dict(format="onnx"), False),
    "ONNX, native ops, no library": (dict(format="onnx", ops="native"), False),
    "ONNX, native ops, our library": (dict(format="onnx", ops="native"), True),
    "LiteRT float32": (dict(format="litert"), False),
    "LiteRT float16": (dict(format="litert", precision="float16"), False),
    "LiteRT dynamic int8": (dict(format="litert", precision="dynamic_int8"), False),
    "LiteRT int8": (dict(format="litert", precision="int8"), False),
}
KERAS = "Keras, compiled ops"
REPRESENTATIVE = 4  # inputs for the ranges of int8


def samples(model, count):
    """Random inputs of one image each, in [0, 1], in the structure that the model takes."""
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.uniform(size=(1, *shape[1:])).astype("float32")

    if not getattr(model, "inputs", None):  # a subclassed one
        return [draw(model.get_build_config()["input_shape"]) for _ in range(count)]
    if isinstance(model.input, dict):
        return [{name: draw(value.shape) for name, value in model.input.items()} for _ in range(count)]
    return [draw(model.inputs[0].shape) for _ in range(count)]


def error(found, expected):
    """Largest difference of the outputs, relative to the largest magnitude of each."""
    found = {name: np.asarray(value, "float64") for name, value in found.items()}
    if set(found) != set(expected):
        raise ValueError(f"Expected the outputs {', '.join(expected)}. Received: {', '.join(found)}")
    worst = [np.abs(found[name] - value).max() / (np.abs(value).max() or 1.0) for name, value in expected.items()]
    return float(np.max(worst))


def measured(name, forms, out, threads, seconds):
    """Rows of a network: Keras first, then each form."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    sample, *representative = samples(model, 1 + REPRESENTATIVE)
    tensors = tf.nest.map_structure(tf.constant, sample)
    with implementation("native"):
        function = tf.function(lambda: model(tensors, training=False))
        expected = function()
    keep = dict(network=name, threads=threads, cpu=timing.cpu())
    yield {**keep, "form": KERAS, "ms": timing.median_ms(function, budget=seconds)}
    for form in forms:
        options, with_library = FORMS[form]
        row, kind = {**keep, "form": form}, options["format"]
        path = out / (model.name + ("_native" if "ops" in options else "") + options.get("precision", ""))
        path = path.with_suffix(export.FORMATS[kind].suffix)
        if options.get("precision") == "int8":
            options = {**options, "representative_data": representative}
        try:
            report = export.export(model, path, validate=False, verbose=False, **options)
            row["megabytes"] = sum(report.bytes.values()) / 1e6
            library = export.ort_library() if with_library else None
            call = runtimes.call_of(kind, path, sample, threads, library)
            row["error"] = error(call(), named(expected, report.outputs))
            row["ms"] = timing.median_ms(call, budget=seconds)
        except Exception as problem:  # an ExportError, or whatever a runtime raises: the others go on
            row["problem"] = first_line(problem)
        yield row


def named(outputs, names):
    """Outputs of the model by the names that the file gives them."""
    values = outputs if isinstance(outputs, dict) else dict(zip(names, tf.nest.flatten(outputs)))
    return {name: np.asarray(values[name], "float64") for name in names}


def markdown(rows):
    lines = ["| network | format | MB | ms | max error |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        size = f"{row['megabytes']:.2f}" if "megabytes" in row else ""
        ms = f"{row['ms']:.2f}" if "ms" in row else ""
        worst = row.get("problem") or (f"{row['error']:.1e}" if "error" in row else "")
        lines.append(f"| {row['network']} | {row['form']} | {size} | {ms} | {worst} |")
    return "\n".join(lines)


def caption(rows):
    machine = f"{rows[0]['cpu']}, {rows[0]['threads']} threads, one image or sequence at a time, untrained weights"
    return f"{machine}. The error is that of the file beside Keras, relative to the largest magnitude of each output."


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export.networks", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="networks")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("outputs/export_table"), help="folder")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))

    rows = []
    with open(args.out / "table.jsonl", "w") as file:
        for name in args.only:
            for row in measured(name, args.forms, args.out, threads, args.seconds):
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(markdown([row]).splitlines()[-1], flush=True)
    (args.out / "table.md").write_text(f"{caption(rows)}\n\n{markdown(rows)}\n")
    print(f"\n{caption(rows)}\nTable: {args.out / 'table.md'}, JSON lines: {args.out / 'table.jsonl'}")


if __name__ == "__main__":
    main()
