# SPDX-License-Identifier: Apache-2.0
"""Errors of FilterRepository and RepositoryConv2D."""

import numpy as np
import pytest

from keras_dynfilter.layers import FilterRepository, RepositoryConv2D

pytestmark = pytest.mark.legacy


def convolution(**arguments):
    return RepositoryConv2D(**{"filters": 4, "kernel_size": 3, **arguments})


IMAGE, FEATURES = (2, 6, 7, 3), (2, 5)
ERRORS = {
    "filters": (lambda: convolution(filters=0), "Expected `filters` to be a positive integer.* filters=0"),
    "base filters": (lambda: convolution(base_filters=2.5), "Expected `base_filters` to be a positive integer.*=2.5"),
    "window": (lambda: convolution(kernel_size=0), "Expected `kernel_size` to be a positive integer or a pair"),
    "algorithm": (
        lambda: convolution(algorithm="fast"),
        "Expected `algorithm` to be one of 'auto', 'shared', 'per_sample'.*'fast'",
    ),
    "bias": (lambda: convolution(use_bias="yes"), "Expected `use_bias` to be one of False, True.*'yes'"),
    "no features": (lambda: convolution().build(IMAGE), r"Expected `inputs` to be a list \[image, features\].*\(2, 6"),
    "one vector": (
        lambda: convolution().build((2, 5)),
        r"Expected `inputs` to be a list \[image, features\].*\(2, 5\)",
    ),
    "rank": (lambda: convolution().build([(2, 6, 3), FEATURES]), r"Expected the image to have rank 4.*\(2, 6, 3\)"),
    "channels": (lambda: convolution().build([(2, 6, 7, None), FEATURES]), "Expected the image to have a known number"),
    "channels first": (
        lambda: convolution(data_format="channels_first").build([(2, None, 6, 7), FEATURES]),
        r"Expected the image to have a known number of channels. Received: image.shape=\(2, None, 6, 7\)",
    ),
    "features": (lambda: convolution().build([IMAGE, (2, 5, 1)]), r"Expected the features to have shape.*\(2, 5, 1\)"),
    "not built": (lambda: convolution(name="conv").coefficients(np.ones(FEATURES)), "called or built.*'conv', which"),
    "not built, filters": (lambda: convolution().generated_filters(np.ones(FEATURES)), "called or built.*, which"),
    "algorithm's rank": (
        lambda: convolution().chosen_algorithm((2, 6, 7)),
        r"Expected `images_shape` to have rank 4 \(channels_last\)\. Received: images_shape=\(2, 6, 7\)",
    ),
    "algorithm's size": (lambda: convolution().chosen_algorithm(7), "Expected `images_shape` to have rank 4.*=7"),
    "algorithm's channels": (
        lambda: convolution().chosen_algorithm((2, 6, 7, None)),
        r"Expected `images_shape` to have a known number of channels.*\(2, 6, 7, None\)",
    ),
    "batch": (
        lambda: convolution()([np.ones(IMAGE), np.ones((3, 5))]),
        "Expected as many feature vectors as images. Received: 3 feature vectors, 2 images",
    ),
    "repository channels": (lambda: FilterRepository(4, 3, 0), "Expected `channels` to be a positive integer.*=0"),
    "coefficients": (
        lambda: FilterRepository(4, 3, 2)(np.ones((2, 15))),
        r"Expected `inputs` to have shape \(None, 4, 4\) or \(None, 16\)\. Received: inputs.shape=\(2, 15\)",
    ),
}


@pytest.mark.parametrize("call, message", ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_built_layers_check_the_next_inputs_too():
    layer = convolution()
    layer.build([(None, 6, 6, 3), (None, 7)])
    for images, features in [((2, 6, 6, 4), (2, 7)), ((2, 6, 6, 3), (2, 8)), ((2, 6, 6, 3), (3, 7))]:
        with pytest.raises(ValueError, match=r"expected axis -1 of input|Expected as many feature vectors"):
            layer([np.ones(images), np.ones(features)])
    repository = FilterRepository(5, 3, 2, base_filters=3)
    assert repository(np.ones((2, 3, 5))).shape == (2, 3, 3, 2, 5)
    for coefficients in [(2, 5, 3), (6, 5)]:  # the same number of values
        with pytest.raises(ValueError, match=r"Expected `inputs` to have shape \(None, 3, 5\) or \(None, 15\)"):
            repository(np.ones(coefficients))
