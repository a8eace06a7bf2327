# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.upsampling_conv2d`: a convolution that enlarges beside one of an enlarged map, forward and backward.

Windows of 5x5 are those of the decoder of `repository_mnist`, whose last convolution has one channel of output.
"""

import argparse
import json
import pathlib

import keras
import tensorflow as tf

from benchmarks import timing
from keras_dynfilter.layers.upsampling_conv2d import UpConv2D

SIZE = 14  # of the small map
CASES = [(5, 20, 1), (5, 20, 20), (3, 20, 1), (3, 64, 64)]  # window, channels, filters


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layers.upsampling_conv2d", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing, about")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/up_conv2d.jsonl", help="JSON lines go here")
    args = parser.parse_args(arguments)
    if min(*args.batch_size, args.seconds) <= 0:
        parser.error(
            f"Expected --batch-size and --seconds to be above zero. Received: {args.batch_size=}, {args.seconds=}"
        )
    return args


def calls(batch, window, channels, filters):
    """`{name: call}`, each of forward and backward, with the same weights."""
    layers = {
        "ours": keras.Sequential([UpConv2D(filters, window)]),
        "UpSampling2D, Conv2D": keras.Sequential(
            [
                keras.layers.UpSampling2D(2, data_format="channels_last"),
                keras.layers.Conv2D(filters, window, padding="same", data_format="channels_last"),
            ]
        ),
    }
    inputs = tf.random.stateless_normal([batch, SIZE, SIZE, channels], [0, 1])
    found, weights = {}, None
    for name, layer in layers.items():
        layer.build(inputs.shape)
        layer.set_weights(weights or layer.get_weights())
        weights = layer.get_weights()
        function = tf.function(_both(layer), autograph=False)
        found[name] = lambda function=function: function(inputs)
    return found


def _both(layer):
    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        return outputs, tape.gradient(outputs, [inputs, *layer.trainable_weights], outputs)

    return compute


def main(arguments=None):
    args = parse(arguments)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    print(f"{timing.cpu()}, TensorFlow {tf.version.VERSION}, float32. Milliseconds:")
    print(f"{'':<40}{'ours':>8}{'UpSampling2D, Conv2D':>22}")
    with open(args.json, "w") as file:
        for batch in args.batch_size:
            for window, channels, filters in CASES:
                case = f"{window}x{window}, {batch}x{SIZE}x{SIZE}x{channels} to {filters}"
                ms = timing.in_turns(calls(batch, window, channels, filters), args.seconds)
                file.write(json.dumps({"case": case, "ms": ms}) + "\n")
                ours, other = ms.values()
                print(f"{case:<40}{ours:>8.2f}{other:>22.2f}", flush=True)
    print(f"\nJSON lines: {args.json}")


if __name__ == "__main__":
    main()
