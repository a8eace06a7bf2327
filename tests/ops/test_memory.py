# SPDX-License-Identifier: Apache-2.0
"""Memory: the ops allocate their result only, and `RepositoryConv2D` does not hold the filters of all samples."""

import json
import math

import pytest
import tensorflow as tf

from benchmarks import timing

from benchmarks.layers import repository_conv2d  # isort: skip  (it must enable statistics before TensorFlow allocates)
import keras_dynfilter as kdf
from keras_dynfilter.layers import RepositoryConv2D

SHAPE = (2, 64, 64, 32)
SPATIAL, CHANNEL = (2, 64, 64, 9), (2, 3, 3, 32)
FORWARD = {
    "local_filter2d": (lambda x, s: kdf.ops.local_filter2d(x, s, 3), [SHAPE, SPATIAL]),
    "local_filter2d, softmax": (
        lambda x, s: kdf.ops.local_filter2d(x, s, 3, normalization="softmax"),
        [SHAPE, SPATIAL],
    ),
    "one channel, softmax": (
        lambda x, s: kdf.ops.local_filter2d(x, s, 9, normalization="softmax"),
        [(2, 256, 256, 1), (2, 256, 256, 81)],
    ),
    "dynamic_depthwise_conv2d": (kdf.ops.dynamic_depthwise_conv2d, [SHAPE, CHANNEL]),
    "ddf2d": (kdf.ops.ddf2d, [SHAPE, CHANNEL, SPATIAL]),
    "ddf2d, add": (lambda *arguments: kdf.ops.ddf2d(*arguments, combine="add"), [SHAPE, CHANNEL, SPATIAL]),
}

# Images, filters and features of a convolution whose filters for all samples take more memory than it must hold.
IMAGES, FILTERS, FEATURES = (32, 8, 8, 64), 64, 16
MAX_OF_HELD = 2.5


def peaks():
    """Returns the MB of the result, and of what the native op and the composite allocate, by name of the op.

    Returns None if the statistics of the allocator are not available.
    """
    rows = {}
    for name, (apply, shapes) in FORWARD.items():
        operands = [tf.random.normal(shape) for shape in shapes]
        row = [operands[0].shape.num_elements() * 4 / 1e6]
        for implementation in ("native", "composite"):
            with kdf.implementation(implementation):
                function = tf.function(apply).get_concrete_function(*operands)
            row.append(timing.peak_mb(lambda function=function, operands=operands: function(*operands)))
        rows[name] = row
    return rows if None not in row else None


def repository_peaks():
    """Returns the MB that a training step must hold, that the layer allocates, and that materialised filters do."""
    layer = RepositoryConv2D(FILTERS, 3)
    shapes = [IMAGES, (IMAGES[0], FEATURES)]
    layer.build(shapes)
    activations = 2 * math.prod(IMAGES)
    held = 4e-6 * (activations + IMAGES[0] * FILTERS**2 + layer.count_params())
    candidates = repository_conv2d.candidates(layer, *(tf.random.normal(shape) for shape in shapes))
    ours, materialised = (candidates[name] for name in ("ours", "materialised"))
    return [held, *(timing.peak_mb(lambda: function(*operands)) for function, operands in (ours, materialised))]  # noqa: B023


@pytest.fixture(scope="module")
def measured(native_library, python):
    """Returns what a fresh process measures: the statistics begin with the process."""
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    if measured["ops"] is None:
        pytest.skip("TensorFlow's statistics of the CPU allocator are not available")
    return measured


def test_forward_allocates_its_result_only(measured):
    assert set(measured["ops"]) == set(FORWARD)
    for name, (result, native, composite) in measured["ops"].items():
        assert result <= native < 1.25 * result, name  # The allocator may return a slightly larger block.
        assert composite > 2 * result, name  # The measurement shows more memory where more is allocated.


def test_generated_filters_are_not_held(measured):
    held, ours, materialised = measured["repository"]
    assert ours <= MAX_OF_HELD * held < materialised  # Materialised filters exceed the limit.


if __name__ == "__main__":
    print(json.dumps({"ops": peaks(), "repository": repository_peaks()}))
