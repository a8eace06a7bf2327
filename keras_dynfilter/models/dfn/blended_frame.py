# SPDX-License-Identifier: Apache-2.0
"""The next frame as a blend: several filterings of the last one, and painted pixels."""

import keras
import tensorflow as tf

from keras_dynfilter.layers import DynamicLocalFilter2D


@keras.saving.register_keras_serializable("keras_dynfilter")
class BlendedFrame(keras.layers.Layer):
    """Filters a frame several times, paints pixels, and mixes them with masks; all of it as it is told per position.

    One filter per position moves one thing. Where things cross, each needs a filter of its own, and what was hidden
    behind another, or has been blurred by earlier predictions, can only be painted.

    Args:
        kernel_size: Odd integer or pair, of the filters, which are normalised with a softmax.
        maps: Positive integer, how many times the frame is filtered.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the frame, `(batch, height, width, 1)`, and the values that say what to do with it,
        `(batch, height, width, count_filter_values())`: the filters of all maps, a weight for each map and one for the
        painting (logits), and the painted pixel (a logit).

    Output shape:
        `(batch, height, width, 1)`, in [0, 1] if the frame is.
    """

    def __init__(self, kernel_size, maps=2, **kwargs):
        super().__init__(**kwargs)
        self.filtering = DynamicLocalFilter2D(
            kernel_size,
            data_format="channels_last",
            normalization="softmax",
            filters=maps,
            dtype=self.dtype_policy,
        )
        self.maps = self.filtering.filters

    def count_filter_values(self):
        """Number of values per position."""
        return sum(self._sizes())

    def split_values(self, values):
        """The filters, the logits of the masks and those of the painted pixels, of `[..., count_filter_values()]`."""
        return tf.split(values, self._sizes(), axis=-1)

    def build(self, input_shape):
        frame, values = (tuple(shape) for shape in input_shape)
        self.filtering.build([frame, (*values[:-1], self.filtering.count_filter_values())])
        super().build(input_shape)

    def call(self, inputs):
        frame, values = inputs
        filters, masks, painted = self.split_values(values)
        candidates = tf.concat([self.filtering([frame, filters]), tf.sigmoid(painted)], axis=-1)
        return tf.reduce_sum(tf.nn.softmax(masks) * candidates, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.filtering.kernel_size, "maps": self.maps}

    def _sizes(self):
        return [self.filtering.count_filter_values(), self.maps + 1, 1]
