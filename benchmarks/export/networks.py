# SPDX-License-Identifier: Apache-2.0
"""Measures file size, time of a call and largest error of the networks in every export format.

The weights are random; they affect neither size nor time. Each call processes one image or sequence, with
TF_NUM_INTRAOP_THREADS threads, or one thread per core. The error is the largest difference between the outputs of the
file and the outputs of the Keras model for the same random input, relative to the largest magnitude of each output. The
results are written as Markdown and as JSON lines.
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import json_lines, new_parser
from benchmarks.export.ddf_resnet import with_active_blocks
from benchmarks.export.runtimes import load_call, threads_from_environment
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_float
from keras_dynfilter import export, implementation, layers, models
from keras_dynfilter.export.report import first_line


def ddf_up_net(image_shape=(64, 64, 3), channels=32):
    """Builds a network that halves an image twice and doubles it twice with `DDFUp2D`, guided by the larger maps."""
    image = keras.Input(image_shape, name="image")

    def convolution(x, strides, name):
        return keras.layers.Conv2D(channels, 3, strides, padding="same", activation="relu", name=name)(x)

    full = convolution(image, 1, "full")
    half = convolution(full, 2, "half")
    x = convolution(half, 2, "quarter")
    for guide, name in ((half, "up_to_half"), (full, "up_to_full")):
        x = layers.DDFUp2D(2, name=name)([x, guide])
    return keras.Model(image, keras.layers.Conv2D(1, 1, name="prediction")(x), name="ddf_up_net")


# By name: a function that builds the network. `models` has no network with `DDFUp2D`; `ddf_up_net` is one.
NETWORKS = {
    "moving MNIST": models.dfn_moving_mnist,
    "steerable": lambda: models.dfn_steerable(image_shape=(64, 64, 1)),
    "stereo": models.dfn_stereo,
    "DDF-ResNet50": lambda: with_active_blocks(models.ddf_resnet50(classifier_activation=None)),
    "DDF-Up net": ddf_up_net,
    "repository MNIST": models.repository_mnist,
}
# By name: options of `export`, and whether onnxruntime loads the library of ops.
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
REPRESENTATIVE = 4  # number of inputs that determine the ranges of int8 values


def samples(model, count):
    """Draws `count` inputs of one image or sequence, in [0, 1], in the structure that the model expects."""
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.uniform(size=(1, *shape[1:])).astype("float32")

    if not getattr(model, "inputs", None):  # a subclassed model
        return [draw(model.get_build_config()["input_shape"]) for _ in range(count)]
    if isinstance(model.input, dict):
        return [{name: draw(value.shape) for name, value in model.input.items()} for _ in range(count)]
    return [draw(model.inputs[0].shape) for _ in range(count)]


def relative_error(outputs, expected):
    """Returns the largest difference from the expected outputs, relative to the largest magnitude of each output."""
    outputs = {name: np.asarray(value, "float64") for name, value in outputs.items()}
    if set(outputs) != set(expected):
        raise ValueError(f"Expected the outputs {', '.join(expected)}. Received: {', '.join(outputs)}")
    errors = [np.abs(outputs[name] - value).max() / (np.abs(value).max() or 1.0) for name, value in expected.items()]
    return float(np.max(errors))


def measure(name, forms, out, threads, seconds):
    """Measures a network. Yields its rows: first Keras, then each form."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    sample, *representative = samples(model, 1 + REPRESENTATIVE)
    tensors = tf.nest.map_structure(tf.constant, sample)
    with implementation("native"):
        function = tf.function(lambda: model(tensors, training=False))
        expected = function()
    common = dict(network=name, threads=threads, cpu=processor_name())
    yield {**common, "form": KERAS, "ms": timing.median_ms(function, budget=seconds)}
    for form in forms:
        options, with_library = FORMS[form]
        row, format = {**common, "form": form}, options["format"]
        path = out / (model.name + ("_native" if "ops" in options else "") + options.get("precision", ""))
        path = path.with_suffix(export.FORMATS[format].suffix)
        if options.get("precision") == "int8":
            options = {**options, "representative_data": representative}
        try:
            report = export.export(model, path, validate=False, verbose=False, **options)
            row["megabytes"] = sum(report.bytes.values()) / 1e6
            library = export.ort_library() if with_library else None
            call = load_call(format, path, sample, threads, library)
            row["error"] = relative_error(call(), name_outputs(expected, report.outputs))
            row["ms"] = timing.median_ms(call, budget=seconds)
        except Exception as problem:  # an ExportError, or an error of a runtime: continue with the other forms
            row["problem"] = first_line(problem)
        yield row


def name_outputs(outputs, names):
    """Returns the outputs of the model by their names in the file."""
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
    """Returns the caption of the table: the machine, and the definition of the error."""
    machine = f"{rows[0]['cpu']}, {rows[0]['threads']} threads, one image or sequence at a time, untrained weights"
    return (
        f"{machine}. The error is the largest difference from Keras, relative to the largest magnitude of each output."
    )


def parse(arguments=None):
    parser = new_parser("benchmarks.export.networks", __doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="only these networks")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="only these forms")
    parser.add_argument("--seconds", type=positive_float, default=3.0, help="approximate time for each row")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("outputs/export_table"), help="folder of the files"
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    threads = threads_from_environment()
    rows = []
    with json_lines(args.out / "table.jsonl") as write:
        for name in args.only:
            for row in measure(name, args.forms, args.out, threads, args.seconds):
                rows.append(row)
                write(row)
                print(markdown([row]).splitlines()[-1], flush=True)
        (args.out / "table.md").write_text(f"{caption(rows)}\n\n{markdown(rows)}\n")
        print(f"\n{caption(rows)}\nTable: {args.out / 'table.md'}")


if __name__ == "__main__":
    main()
