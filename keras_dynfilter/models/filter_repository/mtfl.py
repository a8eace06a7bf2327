# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for facial landmarks (MTFL) of "Learning to Generate Filters for Convolutional Neural
Networks", tables 8 to 14."""

from typing import Any

import keras

from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import batch_norm, relu, symmetric_conv2d
from keras_dynfilter.models.filter_repository.feature_generator import feature_generator
from keras_dynfilter.models.filter_repository.generated_network import generated_conv2d, generated_network
from keras_dynfilter.ops import checks

IMAGE_SHAPE = (64, 64, 3)
LANDMARKS = 5
STRIDES = (1, 2, 2, 2, 2)  # strides of the five convolutions that shrink the images to 4x4
UPSAMPLED = 4  # number of convolutions after these five, each preceded by 2x upsampling
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
    filters: int = 32,
    base_filters: int | None = None,
    generated: dict[int, int] | None = None,
    features_from: str = "post_norm",
    slope: float = 0.01,
    name: str = "repository_mtfl",
    **arguments: Any,
) -> keras.Model:
    """Predicts heat maps of five facial landmarks with convolutions whose filters are generated.

        images -> autoencoder with five encoder layers -> reconstruction
        maps of encoder layer i -> dimension reduction -> features i
        images, features 1 to 5 -> five RepositoryConv2D layers, which shrink the images to 4x4
            -> four times 2x upsampling and a convolution -> convolution -> heat maps

    Batch normalisation and a leaky ReLU follow every convolution of the prediction network except the last one.

    Args:
        filters: Channels of all convolutions of the prediction network except the last one. The paper's Model32 and
            Model64 have 32 and 64.
        base_filters: Number of base filters of each generated convolution. None: equal to `filters`.
        generated: The convolutions with generated filters, among the first nine: a dict from the number of the
            convolution to the number of the encoder layer that supplies its features. The numbers start at 1. None:
            `{1: 1, 2: 2, 3: 3, 4: 4, 5: 5}`, the convolutions that shrink the images. The paper does not say which
            convolutions have generated filters; it has five encoder layers, and its table marks the fifth convolution
            with a footnote whose text is missing.
        features_from: Which encoder maps become features: `"pre_norm"`, the output of the convolution, or
            `"post_norm"`, the output of batch normalisation. The paper says "convolution feature maps before LReLU".
        slope: Slope of the leaky ReLUs below zero, which the paper does not give.
        name: Name of the model.
        **arguments: Further arguments of the `RepositoryConv2D` layers, such as `algorithm`,
            `coefficients_initializer`, `coefficients_bias_initializer`.

    Returns:
        A model that maps images, `[batch, 64, 64, 3]` in [0, 1], to `{"heatmaps": [batch, 64, 64, 5],
        "reconstruction": [batch, 64, 64, 3]}`. The heat maps are linear, without an activation. The model has 2,249,352
        trainable parameters, or 3,865,160 with 64 filters. Two of its layers are models: `"generator"` maps
        images to features and the reconstruction, `"prediction"` maps images and features to heat maps; see
        `inspection.repository_swap`.

    Raises:
        ValueError: An argument is not as described.

    The paper contradicts itself in two places; this model follows the output sizes that the paper prints. The paper
    prints padding 0 for the convolutions, which yields other sizes; here, they have padding 1. The paper prints 5
    output channels for the autoencoder, the number of landmarks; here, it has the 3 channels of the images. The paper
    calls the network "UNet based", but its table lists no skip connections, and this model has none.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 8 to 14.
    """
    generated = {number: number for number in range(1, 6)} if generated is None else generated
    valid = isinstance(generated, dict) and bool(generated)
    pairs = generated.items() if valid else []
    numbers = all(checks.integer(a) and 1 <= a <= 9 and checks.integer(b) and 1 <= b <= 5 for a, b in pairs)
    if not valid or not numbers:
        expected = "Expected `generated` to be a dict of numbers of convolutions, 1 to 9, to encoder layers, 1 to 5"
        raise ValueError(f"{expected}. Received: {generated=}")
    argument_checks.count(filters, "filters")
    base_filters = None if base_filters is None else argument_checks.count(base_filters, "base_filters")
    slope = checks.number(slope, "slope", at_least=0)
    windows = [layer if number in generated.values() else None for number, layer in enumerate(WINDOWS, 1)]
    generator = feature_generator(
        IMAGE_SHAPE, ENCODER, DECODER, windows, slope, encoder_slope=slope, features_from=features_from
    )

    def build(images, features):
        def convolution(inputs, number, strides):
            layer_name = f"conv_{number}"
            if number not in generated:
                return symmetric_conv2d(inputs, filters, 3, strides, name=layer_name)
            vector = features[generated[number]]
            return generated_conv2d(inputs, vector, filters, 3, base_filters, strides, layer_name, **arguments)

        return _heatmaps(images, convolution, slope)

    return generated_network(generator, build, "heatmaps", name)


def repository_mtfl_baseline(
    filters: int = 32, slope: float = 0.01, name: str = "repository_mtfl_baseline"
) -> keras.Model:
    """Predicts heat maps with the prediction network of `repository_mtfl` and ordinary, trained filters.

    Args:
        filters: Positive integer: channels of all convolutions except the last one.
        slope: Slope of the leaky ReLUs below zero.
        name: Name of the model.

    Returns:
        A model that maps `[batch, 64, 64, 3]` to `[batch, 64, 64, 5]`. It has 76,901 trainable parameters, or 301,253
        with 64 filters.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), table 8.
    """
    argument_checks.count(filters, "filters")
    slope = checks.number(slope, "slope", at_least=0)

    def convolution(inputs, number, strides):
        return symmetric_conv2d(inputs, filters, 3, strides, name=f"conv_{number}")

    images = keras.Input(IMAGE_SHAPE, name="images")
    return keras.Model(images, _heatmaps(images, convolution, slope), name=name)


def _heatmaps(images, convolution, slope):
    """Computes heat maps with the prediction network, which calls `convolution(inputs, number, strides)`."""
    outputs = images
    for number, strides in enumerate((*STRIDES, *[1] * UPSAMPLED), 1):
        if number > len(STRIDES):
            outputs = keras.layers.UpSampling2D(2, data_format="channels_last", name=f"up_{number}")(outputs)
        outputs = batch_norm(convolution(outputs, number, strides), f"conv_{number}_bn")
        outputs = relu(outputs, f"conv_{number}_relu", slope)
    outputs = symmetric_conv2d(outputs, LANDMARKS, 3, name="conv_10")
    return keras.layers.Activation("linear", dtype="float32", name="heatmaps")(outputs)
