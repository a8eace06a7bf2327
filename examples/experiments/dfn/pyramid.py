# SPDX-License-Identifier: Apache-2.0
"""Predicts frames with a coarse and a fine filter, for motion beyond the window of one filter.

The paper suggests several resolutions and stacked layers for larger motion, and gives no details. This network is one
way to do it. A first layer generates filters from frames of half the size, and applies them to the full frame with a
dilation of 2: the filters cover twice the distance with the same number of taps, and no scaling down and up blurs the
frame. A second layer filters the result with ordinary filters, generated from the result and the frames.

Paper: https://arxiv.org/abs/1605.09673 (De Brabandere et al., 2016).
"""

import keras
import tensorflow as tf

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.models.dfn.filter_network import FilterNetwork
from keras_dynfilter.models.dfn.normalized_filters import normalized_filters
from keras_dynfilter.models.dfn.sizes import scale_channels
from keras_dynfilter.ops import local_filter2d
from keras_dynfilter.ops.checks import positive

CHANNELS = dict(encoder=(32, 32, 64), state=64, low_decoder=(64,), high_decoder=(32, 64), hidden=128)


@keras.saving.register_keras_serializable("keras_dynfilter_examples")
class PyramidPredictor(keras.Model):
    """Predicts the next frames of a video with two filters for every pixel, a coarse and a fine one.

    Args:
        input_frames: Number of frames that the network is given. It reads this number of frames at every step, without
            a recurrent state.
        output_frames: Number of frames to predict, each from the predictions before it.
        kernel_size: Odd integer; both filters together cover three times the distance of one filter of this size.
        width: Factor of the channel counts of both networks.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        frames: `[batch, input_frames, height, width, 1]`, with sizes that are multiples of 4.
        steps: Positive integer, the number of frames to predict; None: `output_frames`.
        return_flow: Whether to return the flow, too.

    Returns:
        The predictions, `[batch, steps, height, width, 1]`. With `return_flow=True`, a tuple of the predictions and the
        flow (x, y) of every step in pixels, `[batch, steps, height, width, 2]`, which points to the position of a pixel
        in the frame before.

    Raises:
        ValueError: An argument is not as described.
    """

    def __init__(self, input_frames=3, output_frames=3, kernel_size=11, width=1.0, **kwargs):
        super().__init__(**kwargs)
        self.config = dict(input_frames=input_frames, output_frames=output_frames, kernel_size=kernel_size, width=width)
        shared = dict(data_format="channels_last", normalization="softmax")
        self.shrink = keras.layers.AveragePooling2D(2, data_format="channels_last")
        self.enlarge = keras.layers.UpSampling2D(2, data_format="channels_last")
        self.coarse = DynamicLocalFilter2D(kernel_size, dilation_rate=2, **shared, name="coarse")
        self.fine = DynamicLocalFilter2D(kernel_size, dynamic_bias="before", **shared, name="fine")
        channels = scale_channels(CHANNELS, width)
        self.coarse_network = FilterNetwork(self.coarse.count_filter_values(), **channels, name="coarse_network")
        self.fine_network = FilterNetwork(self.fine.count_filter_values(), **channels, name="fine_network")

    def build(self, input_shape):
        self._check(input_shape)
        batch, frames, height, width, _ = input_shape
        half = [None if size is None else size // 2 for size in (height, width)]
        for network, shape in (
            (self.coarse_network, (batch, *half, frames)),
            (self.fine_network, (batch, height, width, frames + 1)),
        ):
            if not network.built:
                network.build(shape)
        keras.layers.Layer.build(self, input_shape)

    def call(self, frames, steps=None, return_flow=False, training=None):
        self._check(frames.shape)
        steps = self.config["output_frames"] if steps is None else positive(steps, "steps")
        queue, predictions, flows = tf.unstack(frames, axis=1), [], []
        for _ in range(steps):
            stacked = tf.concat(queue, axis=-1)
            coarse = self.enlarge(self.coarse_network(self.shrink(stacked)))
            moved_frame = self.coarse([queue[-1], coarse])
            fine = self.fine_network(tf.concat([stacked, tf.cast(moved_frame, stacked.dtype)], axis=-1))
            predictions.append(tf.cast(self.fine([moved_frame, fine]), self.variable_dtype))
            queue = [*queue[1:], tf.cast(predictions[-1], stacked.dtype)]
            if return_flow:
                flows.append(self._flow(coarse, fine))
        predictions = tf.stack(predictions, axis=1)
        return (predictions, tf.stack(flows, axis=1)) if return_flow else predictions

    def _flow(self, coarse, fine):
        """Returns the expected offset of the fine filter plus the offset of the coarse filters where it points to."""
        coarse, fine = (
            normalized_filters(layer, values)[0] for layer, values in ((self.coarse, coarse), (self.fine, fine))
        )
        size = self.config["kernel_size"]
        axis = tf.range(size, dtype=fine.dtype) - size // 2
        offsets = tf.reshape(tf.stack(tf.meshgrid(axis, axis), axis=-1), [-1, 2])
        return fine @ offsets + local_filter2d(2.0 * (coarse @ offsets), fine, size)

    def _check(self, shape):
        shape, count = tuple(shape), self.config["input_frames"]
        if len(shape) != 5 or shape[1] != count or any(size is not None and size % 4 for size in shape[2:4]):
            expected = f"Expected `frames` to have shape (batch, {count}, height, width, 1), sizes in multiples of 4"
            raise ValueError(f"{expected}. Received: frames.shape={shape}")

    def get_config(self):
        return {**keras.layers.Layer.get_config(self), **self.config}


def pyramid(image_shape=(64, 64, 1), input_frames=3, output_frames=3, kernel_size=11, width=1.0, name="pyramid"):
    """Builds a `PyramidPredictor` for frames of `image_shape`.

    With the default arguments, it has fewer parameters than `dfn_highway` for images of the same size.
    """
    model = PyramidPredictor(input_frames, output_frames, kernel_size, width, name=name)
    model.build((None, input_frames, *image_shape))
    return model
