# SPDX-License-Identifier: Apache-2.0
"""Layers of this package in one model with layers, a metric and an optimizer of tensorflow-addons (legacy suite)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter as kdf

if not keras.__version__.startswith("2."):
    pytest.skip("tensorflow-addons imports with Keras 2 only", allow_module_level=True)

tfa = pytest.importorskip("tensorflow_addons", exc_type=ImportError)

pytestmark = [pytest.mark.legacy, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")]


def _model():
    image = keras.Input((12, 12, 2))
    features = keras.layers.Conv2D(8, 3, padding="same")(image)
    features = tfa.layers.GroupNormalization(groups=2)(features)
    local = kdf.layers.DynamicLocalFilter2D(3, normalization="softmax", generator=keras.layers.Conv2D(9, 1))(features)
    local = tfa.layers.InstanceNormalization()(tfa.activations.mish(local))
    taps = keras.layers.Dense(9 * 8)(keras.layers.GlobalAveragePooling2D()(local))
    pooled = kdf.layers.DynamicDepthwiseConv2D(3)([local, taps])
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(pooled)))


def test_a_model_with_addons_trains_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=96)
    row, column = np.mgrid[:12, :12]
    stripes = np.stack([np.sin(row), np.sin(column), np.sin(row + column)])
    images = (stripes[labels][..., None] + 0.1 * rng.normal(size=(96, 12, 12, 2))).astype("float32")
    targets = keras.utils.to_categorical(labels, 3)

    model = _model()
    optimizer = tfa.optimizers.Lookahead(tfa.optimizers.RectifiedAdam(1e-2))
    model.compile(optimizer, tfa.losses.SigmoidFocalCrossEntropy(), [tfa.metrics.F1Score(3, average="macro")])
    history = model.fit(images, targets, batch_size=16, epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["f1_score"][-1] > 0.9

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_ops_of_both_packages_in_one_function():
    """One process loads both op libraries."""
    image = tf.random.normal((2, 8, 8, 3))
    filters = tf.ones((2, 8, 8, 9)) / 9
    blurred = tf.function(lambda x: tfa.image.mean_filter2d(kdf.ops.local_filter2d(x, filters, 3), 3))(image)
    assert blurred.shape == image.shape
