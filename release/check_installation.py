# SPDX-License-Identifier: Apache-2.0
"""Checks an installed package: `python release/check_installation.py --ops native --xla` in its environment.

The script uses nothing of the checkout. It trains a small model, prints the report of `keras_dynfilter.info`, and fails
if the ops run on another implementation than the expected one.
"""

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", choices=("native", "composite"), required=True, help="expected implementation")
    parser.add_argument("--xla", action="store_true", help="expect that the native ops compile under XLA")
    parser.add_argument("--reason", default="", help="text that the report has to contain")
    options = parser.parse_args()
    sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() not in (HERE, HERE.parent)]

    import keras
    import numpy as np
    import tensorflow as tf

    import keras_dynfilter
    from keras_dynfilter import info
    from keras_dynfilter.layers import DDF2D
    from keras_dynfilter.ops import backends

    print("\n".join(info.report()))
    chosen = {op: backends.choose(op).name for op in backends.OPS}
    assert set(chosen.values()) == {options.ops}, chosen
    assert options.reason in "\n".join(info.report()), f"the report does not contain: {options.reason}"
    assert options.ops == "composite" or backends.supports_jit() == options.xla, "XLA"

    images = np.random.default_rng(0).random((8, 16, 16, 4), "float32")
    model = keras.Sequential([keras.Input((16, 16, 4)), DDF2D(3), keras.layers.Conv2D(4, 1)])
    model.compile("adam", "mse", jit_compile=options.xla)
    losses = model.fit(images, images, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0], losses
    spatial, channel = np.ones((8, 16, 16, 9), "float32"), np.ones((8, 3, 3, 4), "float32")
    results = []
    for implementation in (options.ops, "composite"):
        with keras_dynfilter.implementation(implementation):
            function = tf.function(lambda: keras_dynfilter.ops.ddf2d(images, channel, spatial), jit_compile=options.xla)
            results.append(function().numpy())
    np.testing.assert_allclose(*results, rtol=1e-5)
    print(
        f"trained with {options.ops} ops{' under XLA' if options.xla else ''}: loss {losses[0]:.4f} to {losses[-1]:.4f}"
    )


if __name__ == "__main__":
    main()
