# SPDX-License-Identifier: Apache-2.0
"""Measures the cost of the normalisation of generated filters.

The benchmark runs the layer `DDF2D` and whole networks with `FilterNorm` and without normalisation, forward, and
forward and backward. The difference is an upper bound on the time that a faster normalisation could save. As in
`benchmarks.layers.ddf`, small images pass the layer several times within one call; times are per pass.
"""

import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.layers import ddf
from benchmarks.layers.chained import chained, repetitions
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_float
from keras_dynfilter import models

# By name: the normalisation, and whether XLA compiles the function.
FORMS = {
    "without": (None, False),
    "with": ("filter", False),
    "without, XLA": (None, True),
    "with, XLA": ("filter", True),
}
# By name: function that builds a layer or network with a normalisation, and the shape of the inputs.
CASES = {
    **{
        f"DDF2D, {'x'.join(map(str, shape))}": (ddf.ddf_module, shape)
        for shape in ((2, 200, 300, 256), *((32, size, size, 256) for size in (56, 28, 14, 7)))
    },
    "ddf_resnet50, 1x224x224x3": (
        lambda normalization: models.ddf_resnet50(spatial_norm=normalization, channel_norm=normalization),
        (1, 224, 224, 3),
    ),
    "ddf_resnet18, 16x64x64x3": (
        lambda normalization: models.ddf_resnet18((64, 64, 3), spatial_norm=normalization, channel_norm=normalization),
        (16, 64, 64, 3),
    ),
}


def parse(arguments=None):
    parser = new_parser("benchmarks.layers.filter_norm", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE", help="cases: " + "; ".join(CASES))
    add("--seconds", type=positive_float, default=2.0, help="approximate time for each measurement")
    add_json(parser, "outputs/filter_norm.jsonl")
    return parser.parse_args(arguments)


def calls(make, shape, times, backward):
    """Returns a call for each form. A call applies the layer that `make` returns `times` times."""
    tf.random.set_seed(0)
    inputs = tf.random.normal(shape)
    functions = {}
    for form, (normalization, jit_compile) in FORMS.items():
        layer = make(normalization)
        if not layer.built:
            layer.build(shape)
        forward = chained(lambda images, layer=layer: layer(images, training=False), times)
        function = tf.function(_with_gradients(forward, layer) if backward else forward, jit_compile=jit_compile)
        functions[form] = lambda function=function: function(inputs)
    return functions


def _with_gradients(forward, layer):
    """Returns a function that computes the gradients with respect to the inputs and all weights."""

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
            "Expected no GPU: on a GPU, a call may return before its work is done, so its time would be wrong. Hide "
            "the GPU with CUDA_VISIBLE_DEVICES="
        )
    print(f"{processor_name()}, TensorFlow {tf.version.VERSION}, float32. Milliseconds:")
    print(f"{'':<36}{'without':>10}{'with':>10}{'':>8}{'without, XLA':>14}{'with, XLA':>11}")
    with json_lines(args.json) as write:
        for name in args.only:
            make, shape = CASES[name]
            times = repetitions(shape) if name.startswith("DDF2D") else 1
            for backward in (False, True):
                totals = timing.in_turns(calls(make, shape, times, backward), args.seconds)
                ms = {form: value / times for form, value in totals.items()}
                write({"case": name, "backward": backward, "in_a_row": times, "ms": ms})
                print(_row(f"{name}, {'both' if backward else 'forward'}", *ms.values()), flush=True)


if __name__ == "__main__":
    main()
