# SPDX-License-Identifier: Apache-2.0
"""Filter repository networks predict with the filters of other images, and their parts can be inspected."""

import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import inspection, models
from keras_dynfilter.layers import RepositoryConv2D

pytestmark = pytest.mark.legacy


def small(**arguments):
    return models.repository_mnist(encoder_channels=4, base_filters=3, **arguments)


def digits(count, seed=3):
    return np.random.default_rng(seed).uniform(size=(count, 28, 28, 1)).astype("float32")


def test_filters_of_other_images():
    model = small()
    images, others = digits(5), digits(5, seed=4)
    swap = inspection.repository_swap(model)
    own = swap.predict({"images": images, "filters_of": images}, verbose=0)
    np.testing.assert_allclose(own, model(images)["classes"], rtol=1e-5, atol=1e-6)
    swapped = swap({"images": images, "filters_of": others})
    assert np.abs(swapped - own).max() > 1e-4
    features = {k: v for k, v in model.get_layer("generator")(others).items() if k != "reconstruction"}
    np.testing.assert_allclose(
        swapped, model.get_layer("prediction")({"images": tf.constant(images), **features}), rtol=1e-6
    )
    assert {id(weight) for weight in swap.weights} == {id(weight) for weight in model.weights}


@pytest.mark.parametrize("algorithm", ["shared", "per_sample"])
def test_inspect_repository(algorithm):
    images = digits(3)
    model = small(algorithm=algorithm, use_bias=True)
    bias = np.arange(5, dtype="float32")
    model.get_layer("prediction").get_layer("conv_1").bias.assign(bias)
    arrays = inspection.inspect_repository(model, images)
    assert list(arrays) == ["conv_1", "conv_2"]
    shapes = {name: value.shape for name, value in arrays["conv_2"].items()}
    assert shapes == {"coefficients": (3, 3, 5), "filters": (3, 5, 5, 5, 5), "maps": (3, 8, 8, 5)}
    for sample in range(3):
        maps = tf.nn.conv2d(images[sample : sample + 1], arrays["conv_1"]["filters"][sample], 1, "VALID") + bias
        np.testing.assert_allclose(arrays["conv_1"]["maps"][sample : sample + 1], maps, rtol=1e-4, atol=1e-5)
    for call in (inspection.repository_swap, lambda model: inspection.inspect_repository(model, images)):
        with pytest.raises(ValueError, match="Expected `model` to have the layers 'generator' and 'prediction'"):
            call(models.repository_mnist_baseline())


def test_network_of_a_user():
    """A network can be built from the public parts for another task and another image size."""
    generator = models.feature_generator((16, 16, 2), [(4, 1), (6, 2)], [5], [None, [(8, 1, 0)]], encoder_slope=0.1)
    assert {name: tuple(value.shape) for name, value in generator.output.items()} == {
        "features_2": (None, 6),
        "reconstruction": (None, 16, 16, 2),
    }

    def build(images, features):
        return RepositoryConv2D(3, 5, base_filters=4, name="conv")([images, features[2]])

    model = models.generated_network(generator, build, "edges", "edges")
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 2)).astype("float32")
    outputs = model(images)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "edges": (2, 16, 16, 3),
        "reconstruction": (2, 16, 16, 2),
    }
    np.testing.assert_allclose(
        inspection.inspect_repository(model, images)["conv"]["maps"], outputs["edges"], atol=1e-5
    )
    swapped = inspection.repository_swap(model)({"images": images, "filters_of": images[::-1]})
    assert np.abs(swapped - outputs["edges"]).max() > 1e-3
