# SPDX-License-Identifier: Apache-2.0
"""The filter-generating network that the video and stereo networks of DFN share."""

import math

import keras
import tensorflow as tf

from keras_dynfilter.layers import UntiedBias


@keras.saving.register_keras_serializable("keras_dynfilter")
class FilterNetwork(keras.layers.Layer):
    """Generates values for every position of an image: filters, and whatever else it is asked for.

        images -> encoder, halves the image at its second layer -> features
        features (and the last state, if recurrent) -> state
        state -> decoder, doubles the image in its middle -> values

    Convolutions are 3 x 3 with leaky ReLU of slope 0.01, but for the last two, which are 1 x 1, and for the very last
    one, which is linear. They pad with one zero on each side, also where the stride is 2: this is not TensorFlow's
    SAME.

    Args:
        outputs: Number of values per position.
        encoder: Channels of the convolutions of the encoder, two at least.
        state: Channels of the state.
        low_decoder: Channels of the decoder's convolutions at half the image size.
        high_decoder: Channels of those at full size.
        hidden: Channels of the 1 x 1 convolution before the values.
        untied_bias: None, or the layer whose bias differs from position to position: `"image"`, the first of the
            encoder, or `"state"`, the one that makes the features.
        recurrent: Whether there is a state that goes on from step to step. True: the features plus two convolutions of
            the last state, as in the paper. `"gated"`: a convolutional GRU, which can keep a state over many steps.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: `[batch, height, width, channels]`; several frames are several channels.
        state: `[batch, ceil(height / 2), ceil(width / 2), state]`, the last state if recurrent; None: zeros.

    Returns:
        The values, `[batch, height, width, outputs]`; if recurrent, the values and the new state.

    Raises:
        ValueError: `encoder` has less than two layers, or `untied_bias` or `recurrent` is none of these.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), figure 4.
    """

    def __init__(
        self,
        outputs,
        encoder=(32, 32, 64, 64),
        state=128,
        low_decoder=(64, 64),
        high_decoder=(64, 64),
        hidden=128,
        untied_bias=None,
        recurrent=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(encoder) < 2:
            raise ValueError(f"Expected `encoder` to have two layers at least. Received: encoder={encoder!r}")
        if untied_bias not in (None, "image", "state"):
            expected = "Expected `untied_bias` to be None, 'image' or 'state'"
            raise ValueError(f"{expected}. Received: untied_bias={untied_bias!r}")
        if recurrent not in (False, True, "gated"):
            raise ValueError(f"Expected `recurrent` to be False, True or 'gated'. Received: recurrent={recurrent!r}")
        self.config = dict(
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
            # Centred on every second pixel, as the code of the paper does; SAME would centre between two.
            keras.layers.ZeroPadding2D(1, data_format="channels_last", dtype=self.dtype_policy),
            *self._convolution(second, strides=2, padding="valid"),
            *(layer for channels in others for layer in self._convolution(channels)),
            *self._convolution(state, untied=untied_bias == "state"),
        ]
        self.recurrence = []
        if self.gated:  # the gates, and what would be the state if they were open
            self.recurrence = [self._convolution(2 * state)[0], self._convolution(state)[0]]
        elif recurrent:
            self.recurrence = [*self._convolution(state), *self._convolution(state)]
        self.low_decoder = [layer for channels in low_decoder for layer in self._convolution(channels)]
        self.high_decoder = [layer for channels in high_decoder for layer in self._convolution(channels)]
        self.high_decoder += [*self._convolution(hidden, 1), *self._convolution(outputs, 1)]
        self.high_decoder.pop()  # the values are linear

    def build(self, input_shape):
        images = tuple(input_shape)
        state = _build(self.encoder, images)
        if self.gated:
            for layer in self.recurrence:
                layer.build((*state[:3], 2 * state[3]))
        else:
            _build(self.recurrence, state)
        low = _build(self.low_decoder, state)
        _build(self.high_decoder, (*images[:3], low[-1]))
        super().build(input_shape)

    def call(self, images, state=None):
        features = self.encode(images)
        if not self.recurrent:
            return self.decode(features, images)
        state = self.advance(features, self.zero_state(features) if state is None else state)
        return self.decode(state, images), state

    def encode(self, images):
        """The features of images, which do not depend on the state."""
        return _apply(self.encoder, images)

    def zero_state(self, features):
        """The state before the first step."""
        return tf.zeros_like(features)

    def advance(self, features, state):
        """The state after `state`."""
        if not self.gated:
            return features + _apply(self.recurrence, state)
        gates, candidate = self.recurrence
        update, reset = tf.split(tf.sigmoid(gates(tf.concat([features, state], axis=-1))), 2, axis=-1)
        return state + update * (tf.tanh(candidate(tf.concat([features, reset * state], axis=-1))) - state)

    def decode(self, state, images):
        """The values that belong to `state`, at the size of `images`."""
        doubled = _doubled(_apply(self.low_decoder, state))
        height, width = images.shape[1:3]
        if height is None or width is None or height % 2 or width % 2:  # the state of an odd size was rounded up
            size = tf.shape(images)
            doubled = doubled[:, : size[1], : size[2]]
            doubled = tf.ensure_shape(doubled, [None, height, width, None])
        return _apply(self.high_decoder, doubled)

    def compute_output_shape(self, input_shape):
        batch, height, width = tuple(input_shape)[:3]
        values = (batch, height, width, self.config["outputs"])
        if not self.recurrent:
            return values
        half = (None if size is None else -(-size // 2) for size in (height, width))
        return values, (batch, *half, self.state_channels)

    def get_config(self):
        return {**super().get_config(), **self.config}

    def _convolution(self, channels, kernel_size=3, strides=1, padding="same", untied=False):
        """Layers of a convolution with its bias and leaky ReLU."""
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


def _build(layers, shape):
    """Builds layers that follow one another, and returns the shape of the result."""
    for layer in layers:
        layer.build(shape)
        shape = tuple(layer.compute_output_shape(shape))
    return shape


def _apply(layers, values):
    for layer in layers:
        values = layer(values)
    return values


def _doubled(images):
    """Every pixel as 2 x 2 equal ones."""
    return tf.repeat(tf.repeat(images, 2, axis=1), 2, axis=2)


def normalized_filters(layer, values):
    """What a `DynamicLocalFilter2D` makes of the values that it is given.

    Args:
        layer: The layer, channels last.
        values: `[..., filter_channels]`.

    Returns:
        `(filters, bias)` in float32 at least: filters as they are applied, `[..., taps]`, and the dynamic bias,
        `[..., 1]`, or None.
    """
    if values.dtype != tf.float64:
        values = tf.cast(values, tf.float32)
    filters, bias = layer.split_filters(values)
    if layer.normalization is None:
        return filters, bias
    window = layer.kernel_size if layer.separable else (math.prod(layer.kernel_size),)
    window = list(window) * (filters.shape[-1] // sum(window))
    return tf.concat([tf.nn.softmax(part) for part in tf.split(filters, window, axis=-1)], axis=-1), bias


def scaled(width, channels):
    """Channel counts by name, integers or tuples of them, times `width`: rounded, and 1 at least.

    Raises:
        ValueError: `width` is not a positive number.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < float("inf"):
        raise ValueError(f"Expected `width` to be a positive number. Received: width={width!r}")

    def scale(count):
        return max(1, round(count * width))

    return {
        name: tuple(map(scale, value)) if isinstance(value, tuple) else scale(value) for name, value in channels.items()
    }


def pixels_layer(name):
    """What a baseline has in the place of the filtering: a linear convolution of the values of each pixel."""
    return keras.layers.Conv2D(1, 1, data_format="channels_last", kernel_initializer="lecun_uniform", name=name)


def check_image_shape(image_shape):
    if len(image_shape) != 3 or image_shape[-1] != 1:
        raise ValueError(f"Expected `image_shape` to be (height, width, 1). Received: image_shape={image_shape!r}")
