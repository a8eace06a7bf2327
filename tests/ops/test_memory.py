# SPDX-License-Identifier: Apache-2.0
"""Tests that the compiled ops allocate no memory except their result."""

import json

import pytest
import tensorflow as tf

from benchmarks import timing  # isort: skip  (must enable the statistics before TensorFlow allocates)
import keras_dynfilter as kdf

SHAPE = (2, 64, 64, 32)
SPATIAL, CHANNEL = (2, 64, 64, 9), (2, 3, 3, 32)
CALLS = {
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


def measure():
    """Returns three numbers of MB for each call: its result, the peak with the native ops, the peak with composite ops.

    A peak is None if the statistics of the allocator are not available.
    """
    rows = {}
    for name, (call, shapes) in CALLS.items():
        operands = [tf.random.normal(shape) for shape in shapes]
        rows[name] = [operands[0].shape.num_elements() * 4 / 1e6]
        for implementation in ("native", "composite"):
            with kdf.implementation(implementation):
                function = tf.function(call).get_concrete_function(*operands)
            rows[name].append(timing.peak_mb(lambda function=function, operands=operands: function(*operands)))
    return rows


@pytest.mark.slow
def test_forward_allocates_its_result_only(native_library, python):
    """The measurement runs in a new process, because the statistics begin with the process."""
    done = python(__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert set(rows) == set(CALLS)
    for name, (result, native, composite) in rows.items():
        if native is None:
            pytest.skip("TensorFlow's statistics of the CPU allocator are not available")
        assert result <= native < 1.25 * result, name  # The allocator may return a slightly larger block.
        assert composite > 2 * result, name  # The composite does allocate more, so the measurement works.


if __name__ == "__main__":
    print(json.dumps(measure()))
