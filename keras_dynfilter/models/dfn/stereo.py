# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for stereo prediction of "Dynamic Filter Networks", section 4.3."""

import keras

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import pixel_convolution
from keras_dynfilter.models.dfn.filter_network import FilterNetwork
from keras_dynfilter.models.dfn.sizes import scale_channels

CHANNELS = dict(encoder=(32, 32, 64, 64), state=128, low_decoder=(64, 64), high_decoder=(64, 64), hidden=128)


def dfn_stereo(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    kernel_size: int | tuple[int, int] = (1, 13),
    width: float = 1.0,
    untied_bias: bool = True,
    name: str = "dfn_stereo",
) -> keras.Model:
    """Predicts the right view of a rectified stereo camera from the left view.

        left -> FilterNetwork -> one filter and one bias per pixel
        left + bias, filters -> local filtering -> right

    The filters have one row. The taps with the largest weights show the position of a pixel of the right view in the
    left view: a disparity, although no disparities are used in training.

    Args:
        image_shape: `(height, width, 1)`; height and width may be None without untied biases.
        kernel_size: Odd integer or pair: the window of the filters. The largest possible disparity is half the width of
            the window, rounded down.
        width: Factor of all channel counts of the network that generates the filters.
        untied_bias: Whether the convolution in the middle has a separate bias at every position, as in the paper. Such
            a bias fixes the image size. Without it, the model has 333,550 parameters.
        name: Name of the model.

    Returns:
        A model that maps `[batch, height, width, 1]` to `[batch, height, width, 1]`. It has 464,494 parameters by
        default. The layer `"filters"` returns the logits of the filters and the bias; see
        `inspection.generated_filters`.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.3.
    """
    return _stereo(image_shape, kernel_size, width, untied_bias, name, baseline=False)


def dfn_stereo_baseline(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    kernel_size: int | tuple[int, int] = (1, 13),
    width: float = 1.0,
    untied_bias: bool = True,
    name: str = "dfn_stereo_baseline",
) -> keras.Model:
    """Predicts the pixels of the right view directly, with the network of `dfn_stereo` but without filters.

    A 1x1 convolution replaces the softmax, the bias and the filtering.

    Args:
        image_shape: As in `dfn_stereo`.
        kernel_size: Determines the number of channels before the last convolution, as in `dfn_stereo`.
        width: Factor of the other channel counts.
        untied_bias: As in `dfn_stereo`.
        name: Name of the model.

    Returns:
        A model with the input and the output of `dfn_stereo`. It has 464,509 parameters by default.

    Raises:
        ValueError: An argument is not as described.
    """
    return _stereo(image_shape, kernel_size, width, untied_bias, name, baseline=True)


def _stereo(image_shape, kernel_size, width, untied_bias, name, baseline):
    argument_checks.image_shape(image_shape, "image_shape", channels=1)
    layer = DynamicLocalFilter2D(
        argument_checks.window(kernel_size),
        data_format="channels_last",
        normalization="softmax",
        dynamic_bias="before",
        name="right",
    )
    left = keras.Input(image_shape, name="left")
    network = FilterNetwork(
        layer.count_filter_values(),
        **scale_channels(CHANNELS, width),
        untied_bias="state" if argument_checks.flag(untied_bias, "untied_bias") else None,
        name="values" if baseline else "filters",
    )
    values = network(left)
    right = pixel_convolution("right")(values) if baseline else layer([left, values])
    return keras.Model(left, right, name=name)
