# SPDX-License-Identifier: Apache-2.0
"""What the ops allocate: forward, their result and nothing else."""

import json

import pytest
import tensorflow as tf

from benchmarks import measure  # isort: skip  (it switches on statistics, before anything is allocated)
import keras_dynfilter as kdf

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


def peaks():
    """`{name: [MB of the result, MB allocated by the native op, by the composite]}`, or None without statistics."""
    found = {}
    for name, (apply, shapes) in FORWARD.items():
        operands = [tf.random.normal(shape) for shape in shapes]
        row = [operands[0].shape.num_elements() * 4 / 1e6]
        for implementation in ("native", "composite"):
            with kdf.implementation(implementation):
                function = tf.function(apply).get_concrete_function(*operands)
            row.append(measure.peak_mb(lambda function=function, operands=operands: function(*operands)))
        found[name] = row
    return found if None not in row else None


def test_forward_allocates_its_result_only(native_library, python):
    done = python(__file__)  # statistics begin with the process
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if found is None:
        pytest.skip("TensorFlow's statistics of the CPU allocator cannot be had")
    assert set(found) == set(FORWARD)
    for name, (result, native, composite) in found.items():
        assert result <= native < 1.25 * result, name  # the allocator may hand out a somewhat larger block
        assert composite > 2 * result, name  # the measure shows it where there is more


if __name__ == "__main__":
    print(json.dumps(peaks()))
