# SPDX-License-Identifier: Apache-2.0
"""Generates the filters of the DFN video and stereo networks."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import UntiedBias
from keras_dynfilter.layers.argument_types import Shape


@keras.saving.register_keras_serializable("keras_dynfilter")
class FilterNetwork(keras.layers.Layer):
    """Generates values for every position of an image, such as the taps of the filter for this position.

        images -> encoder, whose second layer halves the size -> features
        features (and the previous state, if recurrent) -> state
        state -> decoder, which doubles the size in its middle -> values

    All convolutions have a leaky ReLU of slope 0.01, except the last one, which is linear. The last two convolutions
    are 1x1, all others are 3x3. The 3x3 convolutions pad each side with one zero even with stride 2, unlike
    TensorFlow's `"same"`.

    Args:
        outputs: Number of values per position.
        encoder: Channels of each convolution of the encoder, at least two. One more convolution then computes the
            features.
        state: Channels of the features and of the state.
        low_decoder: Channels of each 3x3 convolution of the decoder at half the image size.
        high_decoder: Channels of each 3x3 convolution of the decoder at full size.
        hidden: Channels of the first of the two 1x1 convolutions.
        untied_bias: The convolution that has a separate bias at every position: `"image"`, the first convolution of the
            encoder; `"state"`, the convolution that computes the features; or None.
        recurrent: Whether the network passes a state from step to step. True: the state is the sum of the features and
            two convolutions of the previous state, as in the paper. `"gated"`: a convolutional GRU, which can keep its
            state over many steps.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: `[batch, height, width, channels]`. Several frames are concatenated along the channels.
        state: `[batch, ceil(height / 2), ceil(width / 2), state]`, the previous state of a recurrent network. None:
            zeros.

    Returns:
        The values, `[batch, height, width, outputs]`. A recurrent network returns the values and the new state.

    Raises:
        ValueError: `encoder` has fewer than two layers, or `untied_bias` or `recurrent` has an unknown value.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), figure 4. The gated
        state is not from the paper.
    """

    def __init__(
        self,
        outputs: int,
        encoder: Sequence[int] = (32, 32, 64, 64),
        state: int = 128,
        low_decoder: Sequence[int] = (64, 64),
        high_decoder: Sequence[int] = (64, 64),
        hidden: int = 128,
        untied_bias: str | None = None,
        recurrent: bool | str = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if len(encoder) < 2:
            raise ValueError(f"Expected `encoder` to have two layers at least. Received: encoder={encoder!r}")
        if untied_bias not in (None, "image", "state"):
            expected = "Expected `untied_bias` to be None, 'image' or 'state'"
            raise ValueError(f"{expected}. Received: untied_bias={untied_bias!r}")
        if recurrent not in (False, True, "gated"):
            raise ValueError(f"Expected `recurrent` to be False, True or 'gated'. Received: recurrent={recurrent!r}")
        self.config: dict[str, Any] = dict(
            outputs=outputs,
            encoder=tuple(encoder),
            state=state,
            low_decoder=tuple(low_decoder),
            high_decoder=tuple(high_decoder),
            hidden=hidden,
            untied_bias=untied_bias,
            recurrent=recurrent,
        )
        self.state_channels = state
        self.recurrent = bool(recurrent)
        self.gated = recurrent == "gated"
        first, second, *others = encoder
        self.encoder = [
            *self._convolution(first, untied=untied_bias == "image"),
            # Centres the windows on pixels 0, 2, 4, ..., as in the paper's code. For even sizes, "same" would centre
            # them on pixels 1, 3, 5, ...
            keras.layers.ZeroPadding2D(1, data_format="channels_last", dtype=self.dtype_policy),
            *self._convolution(second, strides=2, padding="valid"),
            *(layer for channels in others for layer in self._convolution(channels)),
            *self._convolution(state, untied=untied_bias == "state"),
        ]
        self.recurrence = []
        if self.gated:  # linear convolutions: one for both gates, one for the candidate state
            self.recurrence = [self._convolution(2 * state)[0], self._convolution(state)[0]]
        elif recurrent:
            self.recurrence = [*self._convolution(state), *self._convolution(state)]
        self.low_decoder = [layer for channels in low_decoder for layer in self._convolution(channels)]
        self.high_decoder = [layer for channels in high_decoder for layer in self._convolution(channels)]
        self.high_decoder += [*self._convolution(hidden, 1), *self._convolution(outputs, 1)]
        self.high_decoder.pop()  # the values are linear: drop the last leaky ReLU

    def build(self, input_shape: Shape) -> None:
        images = tuple(input_shape)
        state = _build_chain(self.encoder, images)
        if self.gated:
            for layer in self.recurrence:
                layer.build((*state[:3], 2 * state[3]))
        else:
            _build_chain(self.recurrence, state)
        low = _build_chain(self.low_decoder, state)
        _build_chain(self.high_decoder, (*images[:3], low[-1]))
        super().build(input_shape)

    def call(self, images: tf.Tensor, state: tf.Tensor | None = None) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        features = self.encode(images)
        if not self.recurrent:
            return self.decode(features, images)
        state = self.advance(features, self.zero_state(features) if state is None else state)
        return self.decode(state, images), state

    def encode(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the features of images, which do not depend on the state."""
        return _call_chain(self.encoder, images)

    def zero_state(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the state before the first step."""
        return tf.zeros_like(features)

    def advance(self, features: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Computes the next state from the features of a step and the previous state."""
        if not self.gated:
            return features + _call_chain(self.recurrence, state)
        gates, candidate = self.recurrence
        update, reset = tf.split(tf.sigmoid(gates(tf.concat([features, state], axis=-1))), 2, axis=-1)
        return state + update * (tf.tanh(candidate(tf.concat([features, reset * state], axis=-1))) - state)

    def decode(self, state: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Computes the values from a state, at the size of `images`."""
        doubled = _double_size(_call_chain(self.low_decoder, state))
        height, width = images.shape[1:3]
        if height is None or width is None or height % 2 or width % 2:  # odd sizes were rounded up when halved
            size = tf.shape(images)
            doubled = doubled[:, : size[1], : size[2]]
            doubled = tf.ensure_shape(doubled, [None, height, width, None])
        return _call_chain(self.high_decoder, doubled)

    def compute_output_shape(self, input_shape: Shape) -> Shape | tuple[Shape, Shape]:
        batch, height, width = tuple(input_shape)[:3]
        values = (batch, height, width, self.config["outputs"])
        if not self.recurrent:
            return values
        half = (None if size is None else -(-size // 2) for size in (height, width))
        return values, (batch, *half, self.state_channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}

    def _convolution(self, channels, kernel_size=3, strides=1, padding="same", untied=False):
        """Returns the layers of a convolution with a bias and a leaky ReLU."""
        common = {"dtype": self.dtype_policy}
        layers = [
            keras.layers.Conv2D(
                channels,
                kernel_size,
                strides,
                padding,
                "channels_last",
                use_bias=not untied,
                kernel_initializer="lecun_uniform",
                **common,
            )
        ]
        if untied:
            layers.append(UntiedBias(**common))
        return [*layers, keras.layers.LeakyReLU(0.01, **common)]


def _build_chain(layers, shape):
    """Builds layers that follow one another, and returns the shape of the last output."""
    for layer in layers:
        layer.build(shape)
        shape = tuple(layer.compute_output_shape(shape))
    return shape


def _call_chain(layers, values):
    for layer in layers:
        values = layer(values)
    return values


def _double_size(images):
    """Repeats every pixel as a block of 2x2 equal pixels."""
    return tf.repeat(tf.repeat(images, 2, axis=1), 2, axis=2)
