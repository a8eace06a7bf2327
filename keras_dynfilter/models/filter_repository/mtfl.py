# SPDX-License-Identifier: Apache-2.0
"""Facial landmarks, of "Learning to Generate Filters for Convolutional Neural Networks"
(https://arxiv.org/abs/1812.01894)."""

import keras

from keras_dynfilter.models.filter_repository.building_blocks import (
    activate,
    conv2d,
    feature_generator,
    generated_conv2d,
    generated_network,
    normalize,
)
from keras_dynfilter.ops.checks import positive

IMAGE_SHAPE = (64, 64, 3)
LANDMARKS = 5
STRIDES = (1, 2, 2, 2, 2)  # of the convolutions on the way down; on the way up the size is doubled before each
DOUBLED = 4
ENCODER = ((64, 1), (64, 2), (96, 2), (96, 2), (128, 2))
DECODER = (96, 96, 64, 64)
WINDOWS = (
    ((4, 4, 0), (4, 4, 0), (4, 1, 0)),
    ((4, 4, 0), (4, 4, 0), (2, 1, 0)),
    ((4, 4, 0), (4, 1, 0)),
    ((4, 4, 0), (2, 1, 0)),
    ((4, 1, 0),),
)


def repository_mtfl(
    filters=32,
    s=None,
    generated=None,
    tap="normalized",
    slope=0.01,
    name="repository_mtfl",
    **arguments,
):
    """Finds five landmarks in faces: a map of scores for each, by convolutions with generated filters.

        images -> autoencoder of five encoder layers -> reconstruction
        encoder layer i -> dimension reduction -> features i
        images, features 1 to 5 -> five RepositoryConv2D down to 4x4, four convolutions up to 64x64 -> maps

    Args:
        filters: Channels of all convolutions: 32 and 64 are the paper's Model32 and Model64.
        s: Base filters of each generated convolution. None: `filters`.
        generated: Which of the nine convolutions before the last are generated, and of which encoder layer: a dict of
            numbers, both from 1. None: `{1: 1, 2: 2, 3: 3, 4: 4, 5: 5}`, the five on the way down. The paper does not
            say; it has five encoder layers, and a footnote without text at the fifth convolution.
        tap: `"normalized"`: features are made of encoder values before the leaky ReLU; or `"convolution"`: of those
            before batch normalisation.
        slope: Slope of the leaky ReLUs below zero, which the paper does not give.
        name: Name of the model.
        **arguments: Further ones of the generated `RepositoryConv2D`, such as `path`, `coefficients_initializer`,
            `coefficients_bias_initializer`.

    Returns:
        A model of `[batch, 64, 64, 3]`, in [0, 1], to `{"maps": [batch, 64, 64, 5], "reconstruction": [batch, 64, 64,
        3]}`, of 2,249,352 trainable parameters, 3,865,160 with 64 filters; the maps are linear. Its layers
        `"generator"` and `"prediction"` are models, of images to features and of images and features to maps; see
        `repository_swap`.

    Raises:
        ValueError: An argument is not as described.

    The paper contradicts itself, and we follow its output sizes: convolutions are printed with padding 0, which gives
    other sizes, and have 1 here; the autoencoder is printed to end with 5 channels, as many as there are landmarks, and
    ends with those of the images. "UNet based" says the paper, but its table has no connections across; nor have we.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 8 to 14.
    """
    generated = {number: number for number in range(1, 6)} if generated is None else generated
    known = isinstance(generated, dict) and bool(generated)
    if not known or not set(generated) <= set(range(1, 10)) or not set(generated.values()) <= set(range(1, 6)):
        expected = "Expected `generated` to be a dict of numbers of convolutions, 1 to 9, to encoder layers, 1 to 5"
        raise ValueError(f"{expected}. Received: {generated=}")
    windows = [each if number in generated.values() else None for number, each in enumerate(WINDOWS, 1)]
    generator = feature_generator(IMAGE_SHAPE, ENCODER, DECODER, windows, slope, encoder_slope=slope, tap=tap)

    def build(images, features):
        def convolution(inputs, number, strides):
            name = f"conv_{number}"
            if number not in generated:
                return conv2d(inputs, filters, 3, strides, 1, name)
            vector = features[generated[number]]
            return generated_conv2d(inputs, vector, filters, 3, s, strides, name, **arguments)

        return _maps(images, convolution, slope)

    return generated_network(generator, build, "maps", name)


def repository_mtfl_baseline(filters=32, slope=0.01, name="repository_mtfl_baseline"):
    """The prediction network of `repository_mtfl` with trained filters, the same for all images.

    Args:
        filters: Positive integer, channels of all convolutions.
        slope: Slope of the leaky ReLUs below zero.
        name: Name of the model.

    Returns:
        A model of `[batch, 64, 64, 3]` to `[batch, 64, 64, 5]`, of 76,901 trainable parameters; 301,253 with 64
        filters.

    Raises:
        ValueError: `filters` is not as described.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 8.
    """
    positive(filters, "filters")

    def convolution(inputs, number, strides):
        return conv2d(inputs, filters, 3, strides, 1, f"conv_{number}")

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _maps(images, convolution, slope), name=name)


def _maps(images, convolution, slope):
    outputs = images
    for number, strides in enumerate((*STRIDES, *[1] * DOUBLED), 1):
        if number > len(STRIDES):
            outputs = keras.layers.UpSampling2D(2, data_format="channels_last", name=f"up_{number}")(outputs)
        outputs = normalize(convolution(outputs, number, strides), f"conv_{number}_bn")
        outputs = activate(outputs, slope, f"conv_{number}_relu")
    outputs = conv2d(outputs, LANDMARKS, 3, 1, 1, "conv_10")
    return keras.layers.Activation("linear", dtype="float32", name="maps")(outputs)
