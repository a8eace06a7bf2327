# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.filter_norm`: what normalising generated filters costs.

The module `DDF2D` and whole networks with `FilterNorm` and without any normalisation, forward, and forward and
backward. What is between the two is the most that a faster normalisation could save.
"""

import argparse
import json
import pathlib

import tensorflow as tf

from benchmarks import measure
from keras_dynfilter import models
from keras_dynfilter.layers import DDF2D

# Name: the normalisation, and whether all is compiled by XLA.
FORMS = {
    "without": (None, False),
    "with": ("filter", False),
    "without, XLA": (None, True),
    "with, XLA": ("filter", True),
}
# Name: the layer or network for a normalisation, the shape of its inputs.
CASES = {
    "DDF2D, 200x300": (lambda normalization: DDF2D(3, normalization=normalization), (2, 200, 300, 256)),
    **{
        f"DDF2D, {size}x{size}": (lambda normalization: DDF2D(3, normalization=normalization), (32, size, size, 256))
        for size in (56, 28, 14, 7)
    },
    "ddf_resnet50": (lambda normalization: models.ddf_resnet50(normalization=normalization), (1, 224, 224, 3)),
    "ddf_resnet18": (
        lambda normalization: models.ddf_resnet18((64, 64, 3), normalization=normalization),
        (16, 64, 64, 3),
    ),
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filter_norm", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE", help="; ".join(CASES))
    add("--seconds", type=float, default=2.0, help="of each timing, about")
    add("--json", type=pathlib.Path, default="outputs/filter_norm.jsonl", help="JSON lines go here")
    args = parser.parse_args(arguments)
    if args.seconds <= 0:
        parser.error(f"Expected --seconds to be above zero. Received: {args.seconds}")
    return args


def calls(make, shape, backward):
    """`{form: call}`."""
    tf.random.set_seed(0)
    inputs = tf.random.normal(shape)
    found = {}
    for form, (normalization, jit_compile) in FORMS.items():
        layer = make(normalization)
        if not layer.built:
            layer.build(shape)
        function = tf.function(_both(layer) if backward else _forward(layer), jit_compile=jit_compile)
        found[form] = lambda function=function: function(inputs)
    return found


def _forward(layer):
    return lambda inputs: layer(inputs, training=False)


def _both(layer):
    """Gradients by the inputs and all weights."""

    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=False)
        return tape.gradient(outputs, [inputs, *layer.trainable_weights], outputs)

    return compute


def main(arguments=None):
    args = parse(arguments)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    print(f"{measure.cpu()}, TensorFlow {tf.version.VERSION}, float32. Milliseconds:")
    header = "".join(f"{form:>14}" for form in FORMS)
    print(f"{'':<36}{header}")
    with open(args.json, "w") as file:
        for name in args.only:
            make, shape = CASES[name]
            for backward in (False, True):
                ms = measure.in_turns(calls(make, shape, backward), args.seconds)
                file.write(json.dumps({"case": name, "shape": shape, "backward": backward, "ms": ms}) + "\n")
                label = f"{name}, {'both' if backward else 'forward'}"
                print(f"{label:<36}" + "".join(f"{value:>14.2f}" for value in ms.values()), flush=True)
    print(f"\nJSON lines: {args.json}")


if __name__ == "__main__":
    main()
