# SPDX-License-Identifier: Apache-2.0
"""Networks of "Dynamic Filter Networks" (https://arxiv.org/abs/1605.09673)."""

import math

import keras

from keras_dynfilter.layers import DynamicConv2D
from keras_dynfilter.models.dfn.filter_network import check_image_shape
from keras_dynfilter.ops.checks import integer


def dfn_steerable(kernel_size=9, image_shape=(None, None, 1), raw_angles=False, name="dfn_steerable"):
    """Filters images at an angle it is told: the angle generates the filter of a dynamic convolution.

        angles -> Dense 64 -> Dense 128 -> Dense 81 -> filters
        images, filters -> DynamicConv2D -> results

    Args:
        kernel_size: Odd number of rows and columns of the filter.
        image_shape: `(height, width, 1)`; sizes may be None.
        raw_angles: Feed radians to the first layer as they are, as the paper's code does, in place of
            `angle / pi - 1`, which trains faster.
        name: Name of the model.

    Returns:
        A model of `{"images": [batch, height, width, 1], "angles": [batch, 1]}`, angles in radians, to
        `[batch, height, width, 1]`; 18,897 parameters at the default `kernel_size`. The layer `"filters"` gives the
        filters, `[batch, kernel_size**2]`; see `models.generated_filters`.

    Raises:
        ValueError: `kernel_size` is not odd and positive, or `image_shape` is not of one channel.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.1.
    """
    _check(kernel_size, image_shape)
    images = keras.Input(image_shape, name="images")
    angles = keras.Input((1,), name="angles")
    filters = keras.layers.Dense(kernel_size**2, name="filters")(_angle_features(angles, raw_angles))
    results = DynamicConv2D(1, kernel_size, data_format="channels_last", name="results")([images, filters])
    return keras.Model({"images": images, "angles": angles}, results, name=name)


def dfn_steerable_baseline(kernel_size=9, image_shape=(None, None, 1), raw_angles=False, name="dfn_steerable_baseline"):
    """The twin of `dfn_steerable` whose filters are the same for every angle.

    The angle goes through the same hidden layers, but then it is a map beside the features of the image, and ordinary
    convolutions combine the two.

    Args:
        kernel_size: Odd number of rows and columns of the first convolution.
        image_shape: `(height, width, 1)`; sizes may be None.
        raw_angles: As in `dfn_steerable`.
        name: Name of the model.

    Returns:
        A model with the inputs and the output of `dfn_steerable`; 23,553 parameters at the default `kernel_size`.

    Raises:
        ValueError: `kernel_size` is not odd and positive, or `image_shape` is not of one channel.
    """
    _check(kernel_size, image_shape)
    images = keras.Input(image_shape, name="images")
    angles = keras.Input((1,), name="angles")
    image = _leaky()(keras.layers.Conv2D(32, kernel_size, padding="same")(images))
    angle = keras.layers.Dense(64)(_angle_features(angles, raw_angles))
    angle = keras.layers.Reshape((1, 1, 64))(angle)
    # A 1 x 1 convolution of image and angle side by side, with the angle's part of the sum taken once per image.
    mixed = _leaky()(keras.layers.Add()([keras.layers.Conv2D(64, 1)(image), angle]))
    mixed = _leaky()(keras.layers.Conv2D(32, 1)(mixed))
    results = keras.layers.Conv2D(1, 1, name="results")(mixed)
    return keras.Model({"images": images, "angles": angles}, results, name=name)


def _check(kernel_size, image_shape):
    if not integer(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"Expected `kernel_size` to be odd and positive. Received: kernel_size={kernel_size!r}")
    check_image_shape(image_shape)


def _angle_features(angles, raw_angles):
    features = angles if raw_angles else keras.layers.Rescaling(1 / math.pi, -1.0, name="half_turns")(angles)
    for units in (64, 128):
        features = _leaky()(keras.layers.Dense(units)(features))
    return features


def _leaky():
    """Leaky ReLU of slope 0.01, by an argument that Keras 2 and Keras 3 both take first."""
    return keras.layers.LeakyReLU(0.01)
