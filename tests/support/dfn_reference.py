# SPDX-License-Identifier: Apache-2.0
"""Reference implementation of the DFN video networks, step by step and without any layer of the package.

Every step computes everything, also the steps whose predictions are not used. The weights are lists in the order of the
paper's layers.
"""

import numpy as np
import tensorflow as tf


def convolution(images, weights, strides=1, linear=False):
    """Applies a convolution with symmetric padding, a bias and a leaky ReLU.

    It removes its kernel and its bias from the front of `weights`.
    """
    kernel, bias = weights.pop(0), weights.pop(0)
    around = kernel.shape[0] // 2
    padding = [[0, 0], [around, around], [around, around], [0, 0]]
    values = tf.nn.conv2d(images, kernel, strides, padding) + bias
    return values if linear else tf.where(values > 0, values, 0.01 * values)


def local_filter(image, filters, kernel_size):
    """Filters images of one channel with one filter per pixel, `[batch, height, width, taps]`, tap by tap."""
    rows, columns = kernel_size
    _, height, width, _ = image.shape
    padded = tf.pad(image, [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]])
    result = tf.zeros_like(image)
    for u in range(rows):
        for v in range(columns):
            tap = u * columns + v
            result += filters[..., tap : tap + 1] * padded[:, u : u + height, v : v + width]
    return result


def softmax(logits):
    weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def generate(images, state, weights, shape):
    """Computes one step of the filter network.

    Args:
        images: `[batch, height, width, buffer]`.
        state: `[batch, height / 2, width / 2, channels]`, or None without recurrence.
        weights: Kernels and biases in order.
        shape: Numbers of layers of the encoder, and of the decoder before and after it doubles the size.

    Returns:
        The values of every pixel, the new state, and the weights that are left.
    """
    weights = list(weights)
    encoder, low, high = shape
    values = images
    for layer in range(encoder):
        values = convolution(values, weights, strides=2 if layer == 1 else 1)
    values = convolution(values, weights)
    if state is not None:
        values = values + convolution(convolution(state, weights), weights)
    state = values
    for _ in range(low):
        values = convolution(values, weights)
    _, height, width, _ = values.shape
    values = tf.gather(tf.gather(values, np.arange(2 * height) // 2, axis=1), np.arange(2 * width) // 2, axis=2)
    for _ in range(high):
        values = convolution(values, weights)
    values = convolution(convolution(values, weights), weights, linear=True)
    return values, state, weights


def frame_of(last, values, kernel_size, dynamic_bias):
    """Filters the last frame with the filters in `values`. Returns the prediction and the filters."""
    taps = kernel_size[0] * kernel_size[1]
    filters = softmax(values[..., :taps])
    bias = values[..., taps:] if dynamic_bias else 0.0
    return local_filter(last + bias, filters, kernel_size), filters


def predict(frames, steps, weights, shape, state_channels, buffer, kernel_size, dynamic_bias=False, baseline=False):
    """Predicts `[batch, steps, height, width, 1]` from `frames`; the other arguments describe the network."""
    given = frames.shape[1]
    batch, _, height, width, _ = frames.shape
    queue = [frames[:, index] for index in range(given)]
    state = tf.zeros([batch, height // 2, width // 2, state_channels], frames.dtype)
    outputs = []
    for step in range(given - buffer + steps):
        images = tf.concat(queue[step : step + buffer], axis=-1)
        values, state, rest = generate(images, state, weights, shape)
        if baseline:
            frame = convolution(values, rest, linear=True)
        else:
            frame, _ = frame_of(queue[step + buffer - 1], values, kernel_size, dynamic_bias)
        if step >= given - buffer:
            queue.append(frame)
            outputs.append(frame)
    return tf.stack(outputs, axis=1)
