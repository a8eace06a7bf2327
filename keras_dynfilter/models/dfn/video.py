# SPDX-License-Identifier: Apache-2.0
"""Builds the networks for video prediction (moving digits, highway) of "Dynamic Filter Networks", section 4.2."""

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models import argument_checks
from keras_dynfilter.models.baselines.blocks import pixel_convolution
from keras_dynfilter.models.dfn.blended_frame import BlendedFrame
from keras_dynfilter.models.dfn.filter_network import FilterNetwork
from keras_dynfilter.models.dfn.frame_predictor import FramePredictor
from keras_dynfilter.models.dfn.sizes import scale_channels

DIGITS_CHANNELS = dict(encoder=(32, 32, 64, 64), state=128, low_decoder=(64, 64), high_decoder=(64, 64), hidden=128)
BLENDED_CHANNELS = dict(encoder=(32, 32, 64, 64), state=80, low_decoder=(64, 64), high_decoder=(64, 64), hidden=96)
HIGHWAY_CHANNELS = dict(encoder=(32, 32, 64), state=64, low_decoder=(64,), high_decoder=(32, 64), hidden=128)


def dfn_moving_mnist(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    input_frames: int = 10,
    output_frames: int = 10,
    kernel_size: int | tuple[int, int] = 9,
    width: float = 1.0,
    name: str = "dfn_moving_mnist",
) -> FramePredictor:
    """Continues a video of moving digits: every pixel of the last frame is filtered with a 9x9 filter of its own.

    Args:
        image_shape: `(height, width, 1)`; height and width may be None.
        input_frames: Number of given frames.
        output_frames: Number of frames to predict if a call does not give `steps`.
        kernel_size: Odd integer or pair: the window of the filters. Pixels can move by at most `kernel_size // 2` per
            frame.
        width: Factor of all channel counts of the network that generates the filters.
        name: Name of the model.

    Returns:
        A `FramePredictor` that maps `[batch, input_frames, height, width, 1]` to `[batch, output_frames, height, width,
        1]`. It has 637,361 parameters by default.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.2.
    """
    return _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline=False)


def dfn_moving_mnist_baseline(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    input_frames: int = 10,
    output_frames: int = 10,
    kernel_size: int | tuple[int, int] = 9,
    width: float = 1.0,
    name: str = "dfn_moving_mnist_baseline",
) -> FramePredictor:
    """Predicts the pixels of moving digits directly, with the network of `dfn_moving_mnist` but without filters.

    A 1x1 convolution replaces the softmax and the filtering. Predictions are not limited to [0, 1].

    Args:
        image_shape: As in `dfn_moving_mnist`.
        input_frames: As in `dfn_moving_mnist`.
        output_frames: As in `dfn_moving_mnist`.
        kernel_size: Determines the number of channels before the last convolution, as in `dfn_moving_mnist`.
        width: Factor of the other channel counts.
        name: Name of the model.

    Returns:
        A `FramePredictor` with the input and the output of `dfn_moving_mnist`. It has 637,443 parameters by default.

    Raises:
        ValueError: An argument is not as described.
    """
    return _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline=True)


def dfn_moving_mnist_blended(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    input_frames: int = 10,
    output_frames: int = 10,
    kernel_size: int | tuple[int, int] = 9,
    width: float = 1.0,
    name: str = "dfn_moving_mnist_blended",
) -> FramePredictor:
    """Continues a video of moving digits with two filters per pixel, masks and painted pixels.

    This network is not from the paper. It differs from `dfn_moving_mnist` in three ways. It filters every frame twice,
    so that crossing digits can move independently. Masks blend the two results with pixels that the network paints
    (`BlendedFrame`). A gated convolution with fewer channels updates the state, instead of a sum.

    Args:
        image_shape: As in `dfn_moving_mnist`.
        input_frames: As in `dfn_moving_mnist`.
        output_frames: As in `dfn_moving_mnist`.
        kernel_size: Odd integer or pair: the window of the filters.
        width: Factor of all channel counts of the network that generates the filters.
        name: Name of the model.

    Returns:
        A `FramePredictor` with the input and the output of `dfn_moving_mnist`. It has 636,262 parameters by default,
        no more than `dfn_moving_mnist`. With `return_filters=True`, the last axis of the filters holds the taps of the
        two filters one after the other.

    Raises:
        ValueError: An argument is not as described.
    """
    layer = BlendedFrame(argument_checks.window(kernel_size), name="frame")
    channels = scale_channels(BLENDED_CHANNELS, width)
    network = FilterNetwork(layer.count_values(), **channels, recurrent="gated", name="network")
    return _predictor(network, layer, image_shape, input_frames, output_frames, buffer=1, name=name)


def dfn_highway(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    input_frames: int = 3,
    output_frames: int = 3,
    kernel_size: int | tuple[int, int] = 11,
    width: float = 1.0,
    untied_bias: bool = True,
    name: str = "dfn_highway",
) -> FramePredictor:
    """Continues a video from a driving car with 11x11 filters, and a bias that it adds to the frame before filtering.

    Filters only move existing pixels. The bias accounts for new pixels and for changes of light. Each step reads two
    frames.

    Args:
        image_shape: `(height, width, 1)`; height and width may be None without untied biases.
        input_frames: Number of given frames, at least 2.
        output_frames: Number of frames to predict if a call does not give `steps`.
        kernel_size: Odd integer or pair: the window of the filters. Pixels can move by at most `kernel_size // 2` per
            frame.
        width: Factor of all channel counts of the network that generates the filters.
        untied_bias: Whether the first convolution has a separate bias at every position, as in the paper. Such a bias
            fixes the image size. Without it, the model has 237,082 parameters.
        name: Name of the model.

    Returns:
        A `FramePredictor` that maps `[batch, input_frames, height, width, 1]` to `[batch, output_frames, height, width,
        1]`. It has 368,122 parameters by default.

    Raises:
        ValueError: An argument is not as described.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.2.
    """
    return _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline=False)


def dfn_highway_baseline(
    image_shape: tuple[int | None, int | None, int] = (64, 64, 1),
    input_frames: int = 3,
    output_frames: int = 3,
    kernel_size: int | tuple[int, int] = 11,
    width: float = 1.0,
    untied_bias: bool = True,
    name: str = "dfn_highway_baseline",
) -> FramePredictor:
    """Predicts the pixels of a video from a driving car directly, with the network of `dfn_highway` but without
    filters.

    A 1x1 convolution replaces the softmax, the bias and the filtering.

    Args:
        image_shape: As in `dfn_highway`.
        input_frames: As in `dfn_highway`.
        output_frames: As in `dfn_highway`.
        kernel_size: Determines the number of channels before the last convolution, as in `dfn_highway`.
        width: Factor of the other channel counts.
        untied_bias: As in `dfn_highway`.
        name: Name of the model.

    Returns:
        A `FramePredictor` with the input and the output of `dfn_highway`. It has 368,245 parameters by default.

    Raises:
        ValueError: An argument is not as described.
    """
    return _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline=True)


def _moving_mnist(image_shape, input_frames, output_frames, kernel_size, width, name, baseline):
    layer = DynamicLocalFilter2D(
        argument_checks.window(kernel_size), data_format="channels_last", normalization="softmax", name="frame"
    )
    channels = scale_channels(DIGITS_CHANNELS, width)
    network = FilterNetwork(layer.count_filter_values(), **channels, recurrent=True, name="network")
    output = pixel_convolution("frame") if baseline else layer
    return _predictor(network, output, image_shape, input_frames, output_frames, buffer=1, name=name)


def _highway(image_shape, input_frames, output_frames, kernel_size, width, untied_bias, name, baseline):
    layer = DynamicLocalFilter2D(
        argument_checks.window(kernel_size),
        data_format="channels_last",
        normalization="softmax",
        dynamic_bias="before",
        name="frame",
    )
    network = FilterNetwork(
        layer.count_filter_values(),
        **scale_channels(HIGHWAY_CHANNELS, width),
        untied_bias="image" if argument_checks.flag(untied_bias, "untied_bias") else None,
        recurrent=True,
        name="network",
    )
    output = pixel_convolution("frame") if baseline else layer
    return _predictor(network, output, image_shape, input_frames, output_frames, buffer=2, name=name)


def _predictor(network, output, image_shape, input_frames, output_frames, buffer, name):
    argument_checks.image_shape(image_shape, "image_shape", channels=1)
    if argument_checks.count(input_frames, "input_frames") < buffer:
        raise ValueError(f"Expected `input_frames` to be at least {buffer}. Received: {input_frames=}")
    argument_checks.count(output_frames, "output_frames")
    model = FramePredictor(network, output, output_frames, buffer, name=name)
    model.build((None, input_frames, *image_shape))
    return model
