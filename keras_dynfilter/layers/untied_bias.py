# SPDX-License-Identifier: Apache-2.0
"""A separate bias for every position of an image."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers.argument_types import Constraint, Initializer, Regularizer, Shape


@keras.saving.register_keras_serializable("keras_dynfilter")
class UntiedBias(keras.layers.Layer):
    """Adds a separate trained bias to every position and channel.

    An ordinary bias has one value per channel. An untied bias can distinguish the positions of an image, which is
    useful if the camera never moves relative to the scene. It ties the model to one image size.

    Args:
        bias_initializer: Initializer of the bias.
        bias_regularizer: Regularizer of the bias.
        bias_constraint: Constraint of the bias.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, height, width, channels)`, or any other shape whose sizes are known except for the batch.

    Output shape:
        The input shape.

    Raises:
        ValueError: A size other than the batch is unknown, or differs from the size that the layer was built with.

    Example:

    >>> layer = UntiedBias(bias_initializer="ones")
    >>> layer(np.zeros((2, 64, 64, 32))).shape, layer.count_params()
    (TensorShape([2, 64, 64, 32]), 131072)

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016): the networks of
        sections 4.2 (highway driving) and 4.3 (stereo).
    """

    def __init__(
        self,
        bias_initializer: Initializer = "zeros",
        bias_regularizer: Regularizer = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)[1:]
        if None in shape:
            expected = "Expected `inputs` to have known sizes beside the batch, as each position has a bias of its own"
            raise ValueError(f"{expected}. Received: inputs.shape={tuple(input_shape)}")
        self.bias = self.add_weight(
            name="bias",
            shape=shape,
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, self.compute_dtype)  # Keras does not cast integers
        if not inputs.shape[1:].is_compatible_with(self.bias.shape):  # a size of 1 would be broadcast
            sizes = ", ".join(map(str, self.bias.shape))
            expected = f"Expected `inputs` to have shape (batch, {sizes}), as each position has a bias of its own"
            raise ValueError(f"{expected}. Received: inputs.shape={tuple(inputs.shape)}")
        if not inputs.shape[1:].is_fully_defined():
            inputs = tf.ensure_shape(inputs, (None, *self.bias.shape))
        return inputs + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
                "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
                "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            }
        )
        return config
