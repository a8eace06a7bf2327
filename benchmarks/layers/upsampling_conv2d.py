# SPDX-License-Identifier: Apache-2.0
"""Compares the time of `UpsamplingConv2D` with an upsampling layer and a convolution, forward and backward.

The decoder of `repository_mnist` has a 5x5 window, and its last convolution has one output channel.
"""

import keras
import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_float, positive_int
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D

SIZE = 14  # height and width of the small map
CASES = [(5, 20, 1), (5, 20, 20), (3, 20, 1), (3, 64, 64)]  # window, channels, filters


def parse(arguments=None):
    parser = new_parser("benchmarks.layers.upsampling_conv2d", __doc__)
    parser.add_argument("--batch-size", type=positive_int, nargs="+", default=[32, 128], help="numbers of maps")
    parser.add_argument("--seconds", type=positive_float, default=2.0, help="approximate time for each measurement")
    add_json(parser, "outputs/upsampling_conv2d.jsonl")
    return parser.parse_args(arguments)


def calls(batch, window, channels, filters):
    """Returns the calls by name. Each computes the outputs and the gradients, with the same weights."""
    layers = {
        "ours": keras.Sequential([UpsamplingConv2D(filters, window)]),
        "UpSampling2D, Conv2D": keras.Sequential(
            [
                keras.layers.UpSampling2D(2, data_format="channels_last"),
                keras.layers.Conv2D(filters, window, padding="same", data_format="channels_last"),
            ]
        ),
    }
    inputs = tf.random.stateless_normal([batch, SIZE, SIZE, channels], [0, 1])
    functions, weights = {}, None
    for name, layer in layers.items():
        layer.build(inputs.shape)
        layer.set_weights(weights or layer.get_weights())
        weights = layer.get_weights()
        function = tf.function(_with_gradients(layer), autograph=False)
        functions[name] = lambda function=function: function(inputs)
    return functions


def _with_gradients(layer):
    def compute(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        return outputs, tape.gradient(outputs, [inputs, *layer.trainable_weights], outputs)

    return compute


def main(arguments=None):
    args = parse(arguments)
    print(f"{processor_name()}, TensorFlow {tf.version.VERSION}, float32. Milliseconds:")
    print(f"{'':<40}{'ours':>8}{'UpSampling2D, Conv2D':>22}")
    with json_lines(args.json) as write:
        for batch in args.batch_size:
            for window, channels, filters in CASES:
                case = f"{window}x{window}, {batch}x{SIZE}x{SIZE}x{channels} to {filters}"
                ms = timing.in_turns(calls(batch, window, channels, filters), args.seconds)
                write({"case": case, "ms": ms})
                ours, other = ms.values()
                print(f"{case:<40}{ours:>8.2f}{other:>22.2f}", flush=True)


if __name__ == "__main__":
    main()
