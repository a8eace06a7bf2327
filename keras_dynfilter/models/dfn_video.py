# SPDX-License-Identifier: Apache-2.0
"""Video prediction of "Dynamic Filter Networks" (https://arxiv.org/abs/1605.09673): moving MNIST, highway driving."""

import keras

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models.filter_network import FilterNetwork, scaled
from keras_dynfilter.models.frame_predictor import FramePredictor


def dfn_moving_mnist(
    image_shape=(64, 64, 1), input_frames=10, output_frames=10, kernel_size=9, width=1.0, name="dfn_moving_mnist"
):
    """Continues a video of moving digits: every pixel of a frame is filtered with a 9 x 9 filter of its own.

    Args:
        image_shape: `(height, width, 1)`; sizes may be None.
        input_frames: Number of frames given.
        output_frames: Number of frames to predict, unless a call asks for another one.
        kernel_size: Odd integer or pair: the filters, which reach as far as half of it.
        width: Factor of every channel count of the network that generates the filters.
        name: Name of the model.

    Returns:
        A `FramePredictor` of `[batch, input_frames, height, width, 1]` to `[batch, output_frames, height, width, 1]`;
        637,361 parameters by default.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.2.
    """
    return _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline=False)


def dfn_moving_mnist_baseline(
    image_shape=(64, 64, 1),
    input_frames=10,
    output_frames=10,
    kernel_size=9,
    width=1.0,
    name="dfn_moving_mnist_baseline",
):
    """The twin of `dfn_moving_mnist` that makes the pixels themselves, not filters for them.

    Its network is the same, and a 1 x 1 convolution takes the place of softmax and filtering: 637,443 parameters by
    default. Predictions are not limited to [0, 1].

    Args:
        image_shape: As in `dfn_moving_mnist`, and so are the others.
        input_frames: Number of frames given.
        output_frames: Number of frames to predict, unless a call asks for another one.
        kernel_size: Sets the number of channels before the last convolution.
        width: Factor of the other channel counts.
        name: Name of the model.

    Returns:
        A `FramePredictor`, used as `dfn_moving_mnist`.

    Raises:
        ValueError: An argument is not as described.
    """
    return _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline=True)


def _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline):
    layer = DynamicLocalFilter2D(kernel_size, data_format="channels_last", normalization="softmax", name="frame")
    channels = scaled(
        width, encoder=(32, 32, 64, 64), state=128, low_decoder=(64, 64), high_decoder=(64, 64), hidden=128
    )
    network = FilterNetwork(layer.filter_channels(), **channels, recurrent=True, name="network")
    return _predictor(network, layer, baseline, image_shape, input_frames, output_frames, 1, name)


def _predictor(network, layer, baseline, image_shape, input_frames, output_frames, buffer, name):
    output = (
        keras.layers.Conv2D(1, 1, data_format="channels_last", kernel_initializer="lecun_uniform", name="frame")
        if baseline
        else layer
    )
    model = FramePredictor(network, output, output_frames, buffer, name=name)
    model.build((None, input_frames, *image_shape))
    return model
