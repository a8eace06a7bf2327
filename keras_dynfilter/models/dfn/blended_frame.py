# SPDX-License-Identifier: Apache-2.0
"""Predicts a frame by blending several filtered copies of the previous frame with directly predicted pixels."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.layers.argument_types import Shape, Size
from keras_dynfilter.ops.backends.softmax import softmax


@keras.saving.register_keras_serializable("keras_dynfilter")
class BlendedFrame(keras.layers.Layer):
    """Filters a frame several times and blends the results with painted pixels, which a network predicts directly.

        candidates = the frame after each local filter, and sigmoid(painted pixels)
        outputs    = sum over the candidates of softmax(masks) * candidate

    Filters, masks and painted pixels differ from position to position. One filter per position can move one object.
    Where objects cross, each object needs its own filter. Filters cannot restore pixels that were hidden, or that
    earlier predictions blurred: these pixels must be painted.

    Args:
        kernel_size: Odd integer or pair: the window of the filters, which are normalised with a softmax.
        filters: Positive integer: number of filters per position.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of the frame, `(batch, height, width, 1)`, and the values, `(batch, height, width, count_values())`. The
        values of a position are, in this order: the logits of all its filters; one mask logit per filter, and one for
        the painted pixel; and the logit of the painted pixel.

    Output shape:
        `(batch, height, width, 1)`. Outputs are in [0, 1] if the frame is.

    This layer is not from the DFN paper.
    """

    def __init__(self, kernel_size: Size, filters: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.filtering = DynamicLocalFilter2D(
            kernel_size,
            data_format="channels_last",
            normalization="softmax",
            depth_multiplier=filters,
            dtype=self.dtype_policy,
        )
        self.filters = self.filtering.depth_multiplier

    def count_values(self) -> int:
        """Returns the number of values per position."""
        return sum(self._sizes())

    def split_values(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Splits values, `[..., count_values()]`, into the logits of the filters, the masks and the painted pixels."""
        return tf.split(values, self._sizes(), axis=-1)

    def build(self, input_shape: list[Shape]) -> None:
        frame, values = (tuple(shape) for shape in input_shape)
        self.filtering.build([frame, (*values[:-1], self.filtering.count_filter_values())])
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        frame, values = inputs
        filters, masks, painted = self.split_values(values)
        candidates = tf.concat([self.filtering([frame, filters]), tf.sigmoid(painted)], axis=-1)
        return tf.reduce_sum(softmax(masks) * candidates, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.filtering.kernel_size, "filters": self.filters}

    def _sizes(self):
        return [self.filtering.count_filter_values(), self.filters + 1, 1]
