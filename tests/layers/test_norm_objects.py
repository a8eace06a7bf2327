# SPDX-License-Identifier: Apache-2.0
"""Keras layers as the arguments `spatial_norm` and `channel_norm` of DDF2D and DDFUp2D."""

import keras
import numpy as np
import pytest

from keras_dynfilter.layers import DDF2D, FilterNorm

pytestmark = pytest.mark.legacy


def normal(*shape):
    return np.random.default_rng(4).standard_normal(shape).astype("float32")


def test_a_norm_can_get_weights_elsewhere_later(tmp_path):
    """A norm that the caller builds after construction does not keep the layer from being saved or copied."""
    layer_norm, filter_norm = keras.layers.LayerNormalization(), FilterNorm("spatial", 3, scale="tap")
    inputs = keras.Input((8, 8, 9))
    hidden = DDF2D(3, spatial_norm=layer_norm)(layer_norm(inputs))
    model = keras.Model(inputs, DDF2D(3, spatial_norm=filter_norm)(filter_norm(hidden)))
    images = normal(2, 8, 8, 9)
    expected = model(images)

    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), expected)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(images), expected)
    for layer in model.layers:
        if isinstance(layer, DDF2D):
            assert "build_config" not in layer.get_config()["spatial_norm"]
            assert DDF2D.from_config(layer.get_config()).get_config() == layer.get_config()


def test_configurations_of_norms_with_weights_can_be_read():
    norm = keras.layers.LayerNormalization()
    norm.build((None, None, None, 9))
    config = {**DDF2D(3).get_config(), "spatial_norm": keras.saving.serialize_keras_object(norm)}
    assert "build_config" in config["spatial_norm"]
    assert not DDF2D.from_config(config).generator.spatial_norm.built
