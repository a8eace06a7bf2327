# SPDX-License-Identifier: Apache-2.0
"""Stereo prediction of "Dynamic Filter Networks" (https://arxiv.org/abs/1605.09673)."""

import keras

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models.dfn.filter_network import FilterNetwork, check_image_shape, pixels_layer, scaled


def dfn_stereo(image_shape=(64, 64, 1), kernel_size=(1, 13), width=1.0, untied_bias=True, name="dfn_stereo"):
    """Predicts the right view of a rectified stereo camera from the left one.

    Every pixel has a filter of one row, which finds where it lies in the left view: a disparity that nobody has told
    the network. A bias is added to the left view before filtering.

    Args:
        image_shape: `(height, width, 1)`; sizes may be None without untied biases.
        kernel_size: Odd integer or pair: the filters, which reach as far as half of it.
        width: Factor of every channel count of the network that generates the filters.
        untied_bias: Whether the convolution in the middle has a bias of its own at every position, as in the paper,
            which ties the model to one image size. Without, 333,550 parameters.
        name: Name of the model.

    Returns:
        A model of `[batch, height, width, 1]` to `[batch, height, width, 1]`; 464,494 parameters by default. The layer
        `"filters"` generates the logits of the filters and the bias; see `models.generated_filters`.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.3.
    """
    return _stereo(image_shape, kernel_size, width, untied_bias, name, baseline=False)


def dfn_stereo_baseline(
    image_shape=(64, 64, 1), kernel_size=(1, 13), width=1.0, untied_bias=True, name="dfn_stereo_baseline"
):
    """The twin of `dfn_stereo` that makes the pixels themselves, not filters for them.

    Its network is the same, and a 1 x 1 convolution takes the place of softmax, bias and filtering: 464,509 parameters
    by default.

    Args:
        image_shape: As in `dfn_stereo`, and so are the others.
        kernel_size: Sets the number of channels before the last convolution.
        width: Factor of the other channel counts.
        untied_bias: Whether the convolution in the middle has a bias of its own at every position.
        name: Name of the model.

    Returns:
        A model, used as `dfn_stereo`.

    Raises:
        ValueError: An argument is not as described.
    """
    return _stereo(image_shape, kernel_size, width, untied_bias, name, baseline=True)


def _stereo(image_shape, kernel_size, width, untied_bias, name, baseline):
    check_image_shape(image_shape)
    layer = DynamicLocalFilter2D(
        kernel_size, data_format="channels_last", normalization="softmax", dynamic_bias="before", name="right"
    )
    channels = dict(encoder=(32, 32, 64, 64), state=128, low_decoder=(64, 64), high_decoder=(64, 64), hidden=128)
    left = keras.Input(image_shape, name="left")
    network = FilterNetwork(
        layer.count_filter_values(),
        **scaled(width, channels),
        untied_bias="state" if untied_bias else None,
        name="values" if baseline else "filters",
    )
    values = network(left)
    right = pixels_layer("right")(values) if baseline else layer([left, values])
    return keras.Model(left, right, name=name)
