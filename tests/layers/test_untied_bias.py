# SPDX-License-Identifier: Apache-2.0
"""UntiedBias: one bias per position and channel, fixed sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter.layers import UntiedBias

pytestmark = pytest.mark.legacy


def test_every_position_and_channel_has_its_own():
    layer = UntiedBias()
    images = np.random.default_rng(0).random((2, 3, 4, 5)).astype("float32")
    np.testing.assert_array_equal(layer(images), images)
    assert layer.count_params() == 60
    bias = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    layer.set_weights([bias])
    np.testing.assert_array_equal(layer(images), images + bias)
    assert tuple(layer.compute_output_shape((None, 3, 4, 5))) == (None, 3, 4, 5)


@pytest.mark.parametrize("shape", [(2, 5, 4, 2), (2, 3, 4, 1), (2, 1, 4, 2), (2, 4, 2)])
def test_other_sizes_than_it_was_built_with(shape):
    layer = UntiedBias()
    layer(np.zeros((1, 3, 4, 2), np.float32))
    with pytest.raises(
        ValueError, match=r"Expected `inputs` to have shape \(batch, 3, 4, 2\), .* Received: .*shape=\(2, "
    ):
        layer(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(None, None, 2), (None, 4, 2), (4, 4, None)])
def test_unknown_sizes(shape):
    with pytest.raises(ValueError, match=r"Expected `inputs` to have known sizes .*Received: inputs\.shape=\(None, "):
        UntiedBias()(keras.Input(shape))


def test_unknown_sizes_are_checked_at_run_time():
    layer = UntiedBias()
    layer(np.zeros((1, 3, 4, 2), np.float32))
    call = tf.function(layer.call, input_signature=[tf.TensorSpec((None, None, None, 2))])
    assert call(np.zeros((5, 3, 4, 2), np.float32)).shape == (5, 3, 4, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2,1,4,2\].*\[\?,3,4,2\]"):
        call(np.zeros((2, 1, 4, 2), np.float32))
