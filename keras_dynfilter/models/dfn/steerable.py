# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for steerable filters of "Dynamic Filter Networks", section 4.1."""

import math

import keras

from keras_dynfilter.layers import DynamicConv2D
from keras_dynfilter.models import argument_checks
from keras_dynfilter.ops.checks import integer


def dfn_steerable(
    kernel_size: int = 9,
    image_shape: tuple[int | None, int | None, int] = (None, None, 1),
    raw_angles: bool = False,
    name: str = "dfn_steerable",
) -> keras.Model:
    """Filters images at a given angle: the filter of a dynamic convolution is generated from the angle.

        angles -> Dense 64 -> Dense 128 -> Dense 81 -> filters
        images, filters -> DynamicConv2D -> results

    Args:
        kernel_size: Positive odd integer: height and width of the filter.
        image_shape: `(height, width, 1)`; height and width may be None.
        raw_angles: Whether the first layer receives the angles in radians, as in the paper's code. Otherwise it
            receives `angle / pi - 1`, which trains faster.
        name: Name of the model.

    Returns:
        A model that maps `{"images": [batch, height, width, 1], "angles": [batch, 1]}` to `[batch, height, width, 1]`.
        Angles are in radians. The model has 18,897 parameters with the default `kernel_size`. Its layer `"filters"`
        returns the filters, `[batch, kernel_size**2]`; see `inspection.generated_filters`.

    Raises:
        ValueError: `kernel_size` is not odd and positive, or `image_shape` does not have one channel.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.1.
    """
    _check(kernel_size, image_shape, raw_angles)
    images = keras.Input(image_shape, name="images")
    angles = keras.Input((1,), name="angles")
    filters = keras.layers.Dense(kernel_size**2, name="filters")(_angle_features(angles, raw_angles))
    results = DynamicConv2D(1, kernel_size, data_format="channels_last", name="results")([images, filters])
    return keras.Model({"images": images, "angles": angles}, results, name=name)


def dfn_steerable_baseline(
    kernel_size: int = 9,
    image_shape: tuple[int | None, int | None, int] = (None, None, 1),
    raw_angles: bool = False,
    name: str = "dfn_steerable_baseline",
) -> keras.Model:
    """Solves the task of `dfn_steerable` with ordinary filters, which do not depend on the angle.

    The angle passes through the hidden layers of `dfn_steerable`. Then 1x1 convolutions combine its features with the
    features of the image, as if they were further channels of the image.

    Args:
        kernel_size: Positive odd integer: height and width of the window of the first convolution.
        image_shape: `(height, width, 1)`; height and width may be None.
        raw_angles: As in `dfn_steerable`.
        name: Name of the model.

    Returns:
        A model with the inputs and the output of `dfn_steerable`. It has 23,553 parameters with the default
        `kernel_size`.

    Raises:
        ValueError: `kernel_size` is not odd and positive, or `image_shape` does not have one channel.
    """
    _check(kernel_size, image_shape, raw_angles)
    images = keras.Input(image_shape, name="images")
    angles = keras.Input((1,), name="angles")
    image = _leaky()(keras.layers.Conv2D(32, kernel_size, padding="same")(images))
    angle = keras.layers.Dense(64)(_angle_features(angles, raw_angles))
    angle = keras.layers.Reshape((1, 1, 64))(angle)
    # The sum equals a 1x1 convolution of the concatenated image and angle features. It computes the part of the angle
    # once per image instead of once per position.
    mixed = _leaky()(keras.layers.Add()([keras.layers.Conv2D(64, 1)(image), angle]))
    mixed = _leaky()(keras.layers.Conv2D(32, 1)(mixed))
    results = keras.layers.Conv2D(1, 1, name="results")(mixed)
    return keras.Model({"images": images, "angles": angles}, results, name=name)


def _check(kernel_size, image_shape, raw_angles):
    if not integer(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"Expected `kernel_size` to be odd and positive. Received: kernel_size={kernel_size!r}")
    argument_checks.window(kernel_size)
    argument_checks.image_shape(image_shape, "image_shape", channels=1)
    argument_checks.flag(raw_angles, "raw_angles")


def _angle_features(angles, raw_angles):
    features = angles if raw_angles else keras.layers.Rescaling(1 / math.pi, -1.0, name="half_turns")(angles)
    for units in (64, 128):
        features = _leaky()(keras.layers.Dense(units)(features))
    return features


def _leaky():
    # Keras 2 and Keras 3 give the slope different names, but both accept it as the first argument.
    return keras.layers.LeakyReLU(0.01)
