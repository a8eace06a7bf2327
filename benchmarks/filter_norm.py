# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.filter_norm`: what normalising generated filters costs, by the compiled op and composed.

Forward, and forward and backward: `FilterNorm` by itself beside the time that its operands take to be copied, the
module `DDF2D` that it is a part of, with and without normalisation, and whole networks. All but that is the same.
"""

import argparse
import json
import math
import pathlib
from unittest import mock

import tensorflow as tf

from benchmarks import measure
from keras_dynfilter import models
from keras_dynfilter.layers import DDF2D, FilterNorm
from keras_dynfilter.ops import _normalize

FORMS = ("none", "ours", "composed", "ours, XLA", "composed, XLA")
# Name: the layer or network for a normalisation, "filter" or None; the shape of its inputs.
CASES = {
    "spatial filters": (lambda normalization: FilterNorm("spatial"), (2, 200, 300, 9)),
    "channel filters": (lambda normalization: FilterNorm("channel"), (32, 3, 3, 256)),
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
    """`{form: call}`, of those that there are: a layer that only normalises has none without."""
    tf.random.set_seed(0)
    inputs = tf.random.normal(shape)
    found = {}
    for form in FORMS:
        layer = make(None if form == "none" else "filter")
        if form == "none" and isinstance(layer, FilterNorm):
            continue
        if not layer.built:
            layer.build(shape)
        function = tf.function(_both(layer) if backward else _forward(layer), jit_compile=form.endswith("XLA"))
        composed = form.startswith("composed")
        with mock.patch.object(_normalize, "native", (lambda: False) if composed else _normalize.native):
            function(inputs)  # traces
        found[form] = lambda function=function: function(inputs)
    return found


def _forward(layer):
    return lambda inputs: layer(inputs, training=False) if not isinstance(layer, FilterNorm) else layer(inputs)


def _both(layer):
    """Gradients by the inputs and all weights."""
    forward = _forward(layer)

    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = forward(inputs)
        return tape.gradient(outputs, [inputs, *layer.trainable_weights], outputs)

    return compute


def main(arguments=None):
    args = parse(arguments)
    if not _normalize.native():
        raise SystemExit("There is nothing to compare with: the compiled op is not used here (keras_dynfilter.info())")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    copy = measure.copy_gb_per_s()
    print(f"{measure.cpu()}, TensorFlow {tf.version.VERSION}, float32; copy {copy:.1f} GB/s")
    print("Milliseconds, and what ours takes of them")
    with open(args.json, "w") as file:
        for name in args.only:
            make, shape = CASES[name]
            for backward in (False, True):
                ms = measure.in_turns(calls(make, shape, backward), args.seconds)
                # Inputs and outputs; backward inputs, their gradients and those of the outputs besides.
                floor = 4e-6 * math.prod(shape) * (5 if backward else 2) / copy
                row = {"case": name, "shape": shape, "backward": backward, "ms": ms, "copy_ms": floor}
                file.write(json.dumps(row) + "\n")
                print(f"\n{name} ({'x'.join(map(str, shape))}), forward{' + backward' if backward else ''}")
                for form, value in ms.items():
                    print(f"  {form:<16}{value:>10.3f}{ms['ours'] / value:>9.2f}", flush=True)
                if name.endswith("filters"):
                    print(f"  {'copied':<16}{floor:>10.3f}{ms['ours'] / floor:>9.2f}")
    print(f"\nJSON lines: {args.json}")


if __name__ == "__main__":
    main()
