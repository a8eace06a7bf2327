# SPDX-License-Identifier: Apache-2.0
"""Ops on several logical devices, and in child processes made by fork and by spawn."""

import pytest

DEVICES = """
import numpy as np
import tensorflow as tf
from keras_dynfilter.ops import ddf2d, local_filter2d

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)

shapes = [(2, 9, 8, 4), (2, 9, 8, 9), (2, 3, 3, 4)]
images, spatial, channel = (tf.random.stateless_normal(shape, [0, i]) for i, shape in enumerate(shapes))

@tf.function
def filtered():
    results = []
    for number in range(3):
        with tf.device(f"CPU:{number}"), tf.GradientTape() as tape:
            tape.watch(images)
            result = ddf2d(local_filter2d(images, spatial, 3), channel, spatial)
        with tf.device(f"CPU:{number}"):
            results.append((result, tape.gradient(result, images)))
    return results

first, *others = filtered()
for other in others:
    for value, expected in zip(other, first):
        np.testing.assert_array_equal(value, expected)
placed = {op.device[-5:] for op in filtered.get_concrete_function().graph.get_operations()}
assert {"CPU:0", "CPU:1", "CPU:2"} <= placed, placed
print("equal")
"""

# The parent uses ops before a spawn, but not before a fork: TensorFlow itself hangs in a child that is made by fork
# after the threads of TensorFlow have started, for example in `tf.nn.conv2d`.
CHILD = """
import multiprocessing
import sys
import tensorflow as tf
import keras_dynfilter
from keras_dynfilter.ops import local_filter2d

def work(results=None):
    images = tf.random.stateless_normal([2, 200, 200, 8], [0, 0])
    filters = tf.random.stateless_normal([2, 200, 200, 9], [0, 1])
    total = float(tf.reduce_sum(local_filter2d(images, filters, 3)))
    if results is not None:
        results.put(total)
    return total

if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    expected = work() if method == "spawn" else None
    results = context.Queue()
    child = context.Process(target=work, args=(results,))
    child.start()
    result = results.get()
    child.join()
    assert child.exitcode == 0
    assert result == (work() if expected is None else expected)
    print("equal")
"""


@pytest.mark.slow
def test_function_on_several_devices(python):
    process = python("-c", DEVICES)  # logical devices must be made before TensorFlow starts
    assert process.returncode == 0 and "equal" in process.stdout, process.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_child_process(python, method, tmp_path):
    script = tmp_path / "script.py"  # `spawn` imports the file of the parent
    script.write_text(CHILD)
    process = python(str(script), method)
    assert process.returncode == 0 and "equal" in process.stdout, process.stderr[-4000:]
