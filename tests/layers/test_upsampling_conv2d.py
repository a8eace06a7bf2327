# SPDX-License-Identifier: Apache-2.0
"""The convolution that enlarges is an ordinary one of the enlarged map."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import upsampling_conv2d
from keras_dynfilter.layers.upsampling_conv2d import UpsamplingConv2D

pytestmark = pytest.mark.legacy


def networks(kernel_size, sizes=(6, 5)):
    """A model of the layer, and one of those whose place it takes, with the same weights."""
    images = keras.Input((*sizes, 4))
    up = keras.Model(images, UpsamplingConv2D(3, kernel_size)(images))
    enlarged = keras.layers.UpSampling2D(2)(images)
    plain = keras.Model(images, keras.layers.Conv2D(3, kernel_size, padding="same")(enlarged))
    kernel, bias = plain.get_weights()
    up.set_weights([kernel, bias + [0.5, -1.0, 2.0]])
    plain.set_weights(up.get_weights())
    return up, plain


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_outputs_and_gradients_are_those_of_an_enlarged_map(kernel_size):
    images, by_outputs = normal(2, 6, 5, 4), normal(2, 12, 10, 3, seed=1)
    found = []
    for model in networks(kernel_size):
        inputs = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model(inputs)
            loss = tf.reduce_sum(outputs * by_outputs)
        found.append([outputs, *tape.gradient(loss, [inputs, *model.trainable_weights])])
    for ours, expected in zip(*found):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_sizes_may_be_open():
    up, plain = networks(5, sizes=(None, None))
    assert up.output_shape == (None, None, None, 3)
    images = normal(1, 3, 8, 4)
    np.testing.assert_allclose(up(images), plain(images), rtol=1e-4, atol=1e-5)
    assert networks(3, sizes=(6, None))[0].output_shape == (None, 12, None, 3)


def test_under_xla():
    up, plain = networks(5)
    images = normal(2, 6, 5, 4)
    compiled = tf.function(up, jit_compile=True)
    np.testing.assert_allclose(compiled(images), plain(images), rtol=1e-4, atol=1e-5)


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match=r"Expected `kernel_size` to be odd\. Received: kernel_size=2"):
        UpsamplingConv2D(3, 2)
    with pytest.raises(ValueError, match=r"Expected `inputs` to have shape.*Received: inputs.shape=.*3, 4"):
        UpsamplingConv2D(3, 3).build((2, 3, 4))


def test_benchmark(monkeypatch, tmp_path, capsys):
    ours, other = (call() for call in upsampling_conv2d.calls(2, 5, 4, 3).values())
    for found, expected in zip(tf.nest.flatten(ours), tf.nest.flatten(other)):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
    monkeypatch.setattr(timing, "in_turns", lambda calls, budget: dict(zip(calls, (8.0, 42.0))))
    path = tmp_path / "new" / "times.jsonl"
    upsampling_conv2d.main(["--batch-size", "3", "--json", str(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["ms"]["UpSampling2D, Conv2D"] for row in rows] == [42.0] * len(upsampling_conv2d.CASES)
    assert "5x5, 3x14x14x20 to 1" in capsys.readouterr().out
