# SPDX-License-Identifier: Apache-2.0
"""Video prediction of "Dynamic Filter Networks" (https://arxiv.org/abs/1605.09673): moving MNIST, highway driving."""

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models.dfn.blended_frame import BlendedFrame
from keras_dynfilter.models.dfn.filter_network import FilterNetwork, check_image_shape, pixels_layer, scaled
from keras_dynfilter.models.dfn.frame_predictor import FramePredictor


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


def dfn_moving_mnist_blended(
    image_shape=(64, 64, 1),
    input_frames=10,
    output_frames=10,
    kernel_size=9,
    width=1.0,
    name="dfn_moving_mnist_blended",
):
    """A network of our own for moving digits, with no more parameters than `dfn_moving_mnist`: 636,262 by default.

    Three things differ from the paper's: every frame is filtered twice, so that digits that cross move each in its own
    way; masks blend the two with pixels that the network paints (`BlendedFrame`); and the state is kept by a gated
    convolution, a narrower one, in place of a sum.

    Args:
        image_shape: As in `dfn_moving_mnist`, and so are the others.
        input_frames: Number of frames given.
        output_frames: Number of frames to predict, unless a call asks for another one.
        kernel_size: Odd integer or pair: the filters, which reach as far as half of it.
        width: Factor of every channel count of the network that generates the filters.
        name: Name of the model.

    Returns:
        A `FramePredictor`, used as `dfn_moving_mnist`; its filters are those of both filterings, one after the other.

    Raises:
        ValueError: An argument is not as described.
    """
    layer = BlendedFrame(kernel_size, name="frame")
    channels = dict(encoder=(32, 32, 64, 64), state=80, low_decoder=(64, 64), high_decoder=(64, 64), hidden=96)
    network = FilterNetwork(layer.count_filter_values(), **scaled(width, channels), recurrent="gated", name="network")
    return _predictor(network, layer, False, image_shape, input_frames, output_frames, 1, name)


def dfn_highway(
    image_shape=(64, 64, 1),
    input_frames=3,
    output_frames=3,
    kernel_size=11,
    width=1.0,
    untied_bias=True,
    name="dfn_highway",
):
    """Continues a video from a driving car: 11 x 11 filters, and a bias that is added to the frame before filtering.

    Filters only move what is there, and the bias makes what was not: pixels that come into view, changes of light. Each
    step reads two frames.

    Args:
        image_shape: `(height, width, 1)`; sizes may be None without untied biases.
        input_frames: Number of frames given, 2 at least.
        output_frames: Number of frames to predict, unless a call asks for another one.
        kernel_size: Odd integer or pair: the filters, which reach as far as half of it.
        width: Factor of every channel count of the network that generates the filters.
        untied_bias: Whether the first convolution has a bias of its own at every position, as in the paper, which ties
            the model to one image size. Without, 237,082 parameters.
        name: Name of the model.

    Returns:
        A `FramePredictor` of `[batch, input_frames, height, width, 1]` to `[batch, output_frames, height, width, 1]`;
        368,122 parameters by default.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.2.
    """
    return _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline=False)


def dfn_highway_baseline(
    image_shape=(64, 64, 1),
    input_frames=3,
    output_frames=3,
    kernel_size=11,
    width=1.0,
    untied_bias=True,
    name="dfn_highway_baseline",
):
    """The twin of `dfn_highway` that makes the pixels themselves, not filters for them.

    Its network is the same, and a 1 x 1 convolution takes the place of softmax, bias and filtering: 368,245 parameters
    by default.

    Args:
        image_shape: As in `dfn_highway`, and so are the others.
        input_frames: Number of frames given, 2 at least.
        output_frames: Number of frames to predict, unless a call asks for another one.
        kernel_size: Sets the number of channels before the last convolution.
        width: Factor of the other channel counts.
        untied_bias: Whether the first convolution has a bias of its own at every position.
        name: Name of the model.

    Returns:
        A `FramePredictor`, used as `dfn_highway`.

    Raises:
        ValueError: An argument is not as described.
    """
    return _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline=True)


def _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline):
    layer = DynamicLocalFilter2D(kernel_size, data_format="channels_last", normalization="softmax", name="frame")
    channels = dict(encoder=(32, 32, 64, 64), state=128, low_decoder=(64, 64), high_decoder=(64, 64), hidden=128)
    network = FilterNetwork(layer.count_filter_values(), **scaled(width, channels), recurrent=True, name="network")
    return _predictor(network, layer, baseline, image_shape, input_frames, output_frames, 1, name)


def _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline):
    layer = DynamicLocalFilter2D(
        kernel_size, data_format="channels_last", normalization="softmax", dynamic_bias="before", name="frame"
    )
    channels = dict(encoder=(32, 32, 64), state=64, low_decoder=(64,), high_decoder=(32, 64), hidden=128)
    network = FilterNetwork(
        layer.count_filter_values(),
        **scaled(width, channels),
        untied_bias="image" if untied_bias else None,
        recurrent=True,
        name="network",
    )
    return _predictor(network, layer, baseline, image_shape, input_frames, output_frames, 2, name)


def _predictor(network, layer, baseline, image_shape, input_frames, output_frames, buffer, name):
    check_image_shape(image_shape)
    output = pixels_layer("frame") if baseline else layer
    model = FramePredictor(network, output, output_frames, buffer, name=name)
    model.build((None, input_frames, *image_shape))
    return model
