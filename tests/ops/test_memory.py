# SPDX-License-Identifier: Apache-2.0
"""What is allocated: by the ops forward their result alone, by `RepositoryConv2D` no filters of the samples."""

import json
import math

import pytest
import tensorflow as tf

from benchmarks import timing

from benchmarks.layers import repository_conv2d  # isort: skip  (it switches on statistics, before anything is allocated)
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


# Images, filters and features of a convolution whose filters, of all samples, are more than all that it has to hold.
IMAGES, FILTERS, FEATURES = (32, 8, 8, 64), 64, 16


def peaks():
    """`{name: [MB of the result, MB allocated by the native op, by the composite]}`, or None without statistics."""
    found = {}
    for name, (apply, shapes) in FORWARD.items():
        operands = [tf.random.normal(shape) for shape in shapes]
        row = [operands[0].shape.num_elements() * 4 / 1e6]
        for implementation in ("native", "composite"):
            with kdf.implementation(implementation):
                function = tf.function(apply).get_concrete_function(*operands)
            row.append(timing.peak_mb(lambda function=function, operands=operands: function(*operands)))
        found[name] = row
    return found if None not in row else None


def repository_peaks():
    """Forward and backward: MB that must be held, and MB allocated by the fast path and with materialised filters."""
    layer = RepositoryConv2D(FILTERS, 3)
    shapes = [IMAGES, (IMAGES[0], FEATURES)]
    layer.build(shapes)
    activations = 2 * math.prod(IMAGES)
    held = 4e-6 * (activations + IMAGES[0] * FILTERS**2 + layer.count_params())
    candidates = repository_conv2d.candidates(layer, *(tf.random.normal(shape) for shape in shapes))
    found = {name: timing.peak_mb(lambda: function(*given)) for name, (function, given) in candidates.items()}  # noqa: B023
    return [held, found["ours"], found["materialised"]]


@pytest.fixture(scope="module")
def found(native_library, python):
    """What a fresh process found: statistics begin with the process."""
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if found["ops"] is None:
        pytest.skip("TensorFlow's statistics of the CPU allocator cannot be had")
    return found


def test_forward_allocates_its_result_only(found):
    found = found["ops"]
    assert set(found) == set(FORWARD)
    for name, (result, native, composite) in found.items():
        assert result <= native < 1.25 * result, name  # the allocator may hand out a somewhat larger block
        assert composite > 2 * result, name  # the measure shows it where there is more


def test_generated_filters_are_not_held(found):
    held, ours, materialised = found["repository"]
    assert ours <= repository_conv2d.MOST_OF_HELD * held < materialised  # the bar tells them apart


if __name__ == "__main__":
    print(json.dumps({"ops": peaks(), "repository": repository_peaks()}))
