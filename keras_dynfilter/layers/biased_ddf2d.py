# SPDX-License-Identifier: Apache-2.0
"""DDF in the place of a convolution that has a bias and an activation."""

import keras
import tensorflow as tf

from keras_dynfilter.layers.ddf2d import DDF2D


@keras.saving.register_keras_serializable("keras_dynfilter")
class BiasedDDF2D(DDF2D):
    """`DDF2D` with the bias and the activation of the convolution in whose place it stands.

    Args:
        kernel_size: Of `DDF2D`.
        use_bias: Whether a bias per channel is added, which starts at 0.
        activation: Activation of the outputs; None for none.
        bias_regularizer: Regularizer of this bias.
        **kwargs: Further arguments of `DDF2D`.

    Input shape:
        - `(batch, height, width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, height, width)` if `data_format="channels_first"`.

    Output shape:
        - `(batch, out_height, out_width, channels)` if `data_format="channels_last"`.
        - `(batch, channels, out_height, out_width)` if `data_format="channels_first"`.

        With strides, `ceil(size / strides)` positions along an axis, as for `DDF2D`.

    Raises:
        ValueError: An argument is not as described, or the inputs have another shape.

    Example:

    >>> layer = BiasedDDF2D(3, strides=2, activation="relu")
    >>> layer(np.ones((2, 7, 8, 64))).shape
    TensorShape([2, 4, 4, 64])
    >>> layer.count_params()  # those of DDF2D, and 64
    9493

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 3; the
        bias and the activation are not part of it.
    """

    own_arguments = (*DDF2D.own_arguments, "use_bias")

    def __init__(self, kernel_size=3, use_bias=True, activation=None, bias_regularizer=None, **kwargs):
        super().__init__(kernel_size, **kwargs)
        self.use_bias = bool(use_bias)
        self.activation = keras.activations.get(activation)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias = None

    def build(self, input_shape):
        if self.use_bias:
            channels = self.check_inputs(input_shape)[-1]
            self.bias = self.add_weight(
                name="bias", shape=(channels,), initializer="zeros", regularizer=self.bias_regularizer
            )
        super().build(input_shape)

    def call(self, inputs, training=None):
        outputs = super().call(inputs, training=training)
        if self.bias is not None:
            bias = self.bias[:, None, None] if self.data_format == "channels_first" else self.bias
            outputs += tf.cast(bias, outputs.dtype)
        return self.activation(outputs)

    def get_config(self):
        config = super().get_config()
        config["activation"] = keras.activations.serialize(self.activation)
        config["bias_regularizer"] = keras.regularizers.serialize(self.bias_regularizer)
        return config
