# SPDX-License-Identifier: Apache-2.0
"""Predicts the next frames of a video one after the other, and feeds each prediction back as an input."""

from typing import Any

import keras
import tensorflow as tf

from keras_dynfilter.layers import DynamicLocalFilter2D
from keras_dynfilter.layers.argument_types import Shape
from keras_dynfilter.models.dfn.blended_frame import BlendedFrame
from keras_dynfilter.models.dfn.filter_network import FilterNetwork
from keras_dynfilter.models.dfn.normalized_filters import normalized_filters
from keras_dynfilter.ops import layout
from keras_dynfilter.ops.checks import positive


@keras.saving.register_keras_serializable("keras_dynfilter")
class FramePredictor(keras.Model):
    """Continues a video with a recurrent network that generates the filters for the last frame.

    Each step reads the last `buffer` frames of a queue, advances the state of the network, generates values from the
    state, and computes a prediction from the values and the last frame. The prediction joins the queue for the next
    step.

    The model sees only the given frames and its own predictions, in training as well. Gradients flow through the
    predictions that it feeds back. Steps before the last given frame only update the state.

    Args:
        network: The recurrent `FilterNetwork`.
        output: The layer that computes a frame. A `DynamicLocalFilter2D` or a `BlendedFrame` receives the last frame
            and the values of the network. Any other layer (of a baseline) receives only the values.
        output_frames: Number of frames to predict if a call does not pass `steps`.
        buffer: Number of frames that each step reads.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        frames: `[batch, frames, height, width, 1]`: any number of frames, at least `buffer`.
        steps: Positive integer: number of frames to predict. None: `output_frames`.
        return_filters: Whether to return the generated filters as well.

    Returns:
        The predictions, `[batch, steps, height, width, 1]`, in float32 even if the network computes in a narrower
        dtype. With `return_filters=True`, a dict: `"frames"`, the predictions; `"filters"`, the filters after the
        softmax, `[batch, steps, height, width, taps]`; and `"bias"`, `[batch, steps, height, width, 1]`, if there is a
        dynamic bias. If there are several filters per position, the last axis holds their taps one after the other.

    Raises:
        ValueError: An argument is not as described, or `return_filters` is set for a baseline.

    Reference:
        [Dynamic Filter Networks](https://arxiv.org/abs/1605.09673) (De Brabandere et al., 2016), section 4.2.
    """

    def __init__(
        self, network: FilterNetwork, output: keras.layers.Layer, output_frames: int, buffer: int = 1, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.network = network
        self.output_layer = output
        self.output_frames = positive(output_frames, "output_frames")
        self.buffer = positive(buffer, "buffer")
        self.generates_filters = isinstance(output, (DynamicLocalFilter2D, BlendedFrame))

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        self._check(shape)
        batch, _, *image = shape
        values = (batch, *image[:2], self.network.config["outputs"])
        shapes = {
            self.network: (batch, *image[:2], self.buffer),  # a frame has one channel
            self.output_layer: [(batch, *image), values] if self.generates_filters else values,
        }
        for layer, layer_shape in shapes.items():
            if not layer.built:  # when a model is loaded, its layers are built before it
                layer.build(layer_shape)
        keras.layers.Layer.build(self, input_shape)

    def call(
        self,
        frames: tf.Tensor,
        steps: int | None = None,
        return_filters: bool = False,
        training: bool | None = None,
    ) -> tf.Tensor | dict[str, tf.Tensor]:
        self._check(frames.shape)
        steps = self.output_frames if steps is None else positive(steps, "steps")
        if return_filters and not self.generates_filters:
            raise ValueError(f"Expected a model that generates filters, for `return_filters`. Received: {self.name}")

        features = self._given_features(frames)
        state = self.network.zero_state(features[0])
        for feature in features[:-1]:  # these steps would predict frames that are given: only update the state
            state = self.network.advance(feature, state)

        # A Python loop instead of tf.while_loop: a training step takes 0.6 of the time, and exported files contain no
        # loops. Tracing 19 steps takes 3 s (10 s more with XLA).
        queue = tf.unstack(frames[:, -self.buffer :], axis=1)
        feature, predictions, values = features[-1], [], []
        for step in range(steps):
            if step > 0:
                feature = self.network.encode(tf.concat(queue, axis=-1))
            state = self.network.advance(feature, state)
            values.append(self.network.decode(state, queue[-1]))
            inputs = [queue[-1], values[-1]] if self.generates_filters else values[-1]
            predictions.append(self.output_layer(inputs))
            queue = [*queue[1:], predictions[-1]]

        predictions = tf.cast(tf.stack(predictions, axis=1), self.variable_dtype)
        return {"frames": predictions, **self._filters(values)} if return_filters else predictions

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.layers.Layer.get_config(self),
            "network": keras.saving.serialize_keras_object(self.network),
            "output": keras.saving.serialize_keras_object(self.output_layer),
            "output_frames": self.output_frames,
            "buffer": self.buffer,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "FramePredictor":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in ("network", "output")
        }
        return cls(**{**config, **parts})

    def _given_features(self, frames):
        """Returns a list with the features of each step that reads only given frames, computed in one batch."""
        count = frames.shape[1] - self.buffer + 1
        windows = tf.concat([frames[:, first : first + count] for first in range(self.buffer)], axis=-1)
        windows = tf.transpose(windows, [1, 0, 2, 3, 4])  # steps first, so that the samples of a step are contiguous
        shape = [-1, *layout.sizes(windows)[2:]]
        return tf.split(self.network.encode(tf.reshape(windows, shape)), count, axis=0)

    def _filters(self, values):
        """Computes the entries `"filters"` and `"bias"` of the result from the values of each step."""
        layer, values = self.output_layer, tf.stack(values, axis=1)
        if isinstance(layer, BlendedFrame):
            layer, values = layer.filtering, layer.split_values(values)[0]
        filters, bias = normalized_filters(layer, values)
        return {"filters": filters} if bias is None else {"filters": filters, "bias": bias}

    def _check(self, shape):
        if len(shape) != 5 or shape[1] is None or shape[1] < self.buffer or shape[-1] != 1:
            expected = f"Expected `frames` to have shape (batch, {self.buffer} or more, height, width, 1)"
            raise ValueError(f"{expected}. Received: frames.shape={tuple(shape)}")
