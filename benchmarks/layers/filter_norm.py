# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.filter_norm`: what normalising generated filters costs.

The module `DDF2D` and whole networks with `FilterNorm` and without any normalisation, forward, and forward and
backward. What is between the two is the most that a faster normalisation could save. As in `benchmarks.layers.ddf`,
small images go through the module several times within one call, and times are those of one.
"""

import argparse
import json
import pathlib

import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import ddf
from keras_dynfilter import models

# Name: the normalisation, and whether all is compiled by XLA.
FORMS = {
    "without": (None, False),
    "with": ("filter", False),
    "without, XLA": (None, True),
    "with, XLA": ("filter", True),
}
# Name: the layer or network for a normalisation, and the shape of its inputs.
CASES = {
    **{
        f"DDF2D, {'x'.join(map(str, shape))}": (ddf.ddf_module, shape)
        for shape in ((2, 200, 300, 256), *((32, size, size, 256) for size in (56, 28, 14, 7)))
    },
    "ddf_resnet50, 1x224x224x3": (
        lambda normalization: models.ddf_resnet50(normalization=normalization),
        (1, 224, 224, 3),
    ),
    "ddf_resnet18, 16x64x64x3": (
        lambda normalization: models.ddf_resnet18((64, 64, 3), normalization=normalization),
        (16, 64, 64, 3),
    ),
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers.filter_norm", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE", help="; ".join(CASES))
    add("--seconds", type=float, default=2.0, help="of each timing, about")
    add("--json", type=pathlib.Path, default="outputs/filter_norm.jsonl", help="JSON lines go here")
    args = parser.parse_args(arguments)
    if args.seconds <= 0:
        parser.error(f"Expected --seconds to be above zero. Received: {args.seconds}")
    return args


def calls(make, shape, times, backward):
    """`{form: call}`, each of what is made, applied several times in a row."""
    tf.random.set_seed(0)
    inputs = tf.random.normal(shape)
    found = {}
    for form, (normalization, jit_compile) in FORMS.items():
        layer = make(normalization)
        if not layer.built:
            layer.build(shape)
        forward = ddf.chained(lambda images, layer=layer: layer(images, training=False), times)
        function = tf.function(_both(forward, layer) if backward else forward, jit_compile=jit_compile)
        found[form] = lambda function=function: function(inputs)
    return found


def _both(forward, layer):
    """Gradients by the inputs and all weights."""

    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = forward(inputs)
        return tape.gradient(outputs, [inputs, *layer.trainable_weights], outputs)

    return compute


def _row(label, plain, normalized, plain_xla, normalized_xla):
    more, more_xla = (100 * (value / base - 1) for value, base in ((normalized, plain), (normalized_xla, plain_xla)))
    return f"{label:<36}{plain:>10.2f}{normalized:>10.2f}{more:>+6.0f} %" + (
        f"{plain_xla:>14.2f}{normalized_xla:>11.2f}{more_xla:>+6.0f} %"
    )


def main(arguments=None):
    args = parse(arguments)
    if tf.config.get_visible_devices("GPU"):
        raise SystemExit(
            "Expected no GPU, as calls are timed that may return before one has finished. Hide it with "
            "CUDA_VISIBLE_DEVICES="
        )
    args.json.parent.mkdir(parents=True, exist_ok=True)
    print(f"{timing.cpu()}, TensorFlow {tf.version.VERSION}, float32. Milliseconds:")
    print(f"{'':<36}{'without':>10}{'with':>10}{'':>8}{'without, XLA':>14}{'with, XLA':>11}")
    with open(args.json, "w") as file:
        for name in args.only:
            make, shape = CASES[name]
            times = ddf.in_a_row(shape) if name.startswith("DDF2D") else 1
            for backward in (False, True):
                found = timing.in_turns(calls(make, shape, times, backward), args.seconds)
                ms = {form: value / times for form, value in found.items()}
                file.write(json.dumps({"case": name, "backward": backward, "in_a_row": times, "ms": ms}) + "\n")
                print(_row(f"{name}, {'both' if backward else 'forward'}", *ms.values()), flush=True)
    print(f"\nJSON lines: {args.json}")


if __name__ == "__main__":
    main()
