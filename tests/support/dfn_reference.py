# SPDX-License-Identifier: Apache-2.0
"""Reference implementation of the DFN networks, step by step and without any layer of the package.

Every step runs the whole network, even if its prediction is not used. The weights are lists in the order of the paper's
layers.
"""

import numpy as np
import tensorflow as tf


def convolution(images, weights, strides=1, linear=False):
    """Applies a convolution with symmetric padding, a bias and a leaky ReLU.

    The function removes its kernel and its bias from the front of `weights`.
    """
    kernel, bias = weights.pop(0), weights.pop(0)
    pad = kernel.shape[0] // 2
    padding = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
    values = tf.nn.conv2d(images, kernel, strides, padding) + bias
    return values if linear else tf.where(values > 0, values, 0.01 * values)


def local_filter(image, filters, kernel_size):
    """Filters images of one channel tap by tap, with one filter per pixel: `[batch, height, width, taps]`."""
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
    exponentials = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    return exponentials / tf.reduce_sum(exponentials, axis=-1, keepdims=True)


def generate(images, state, weights, depths):
    """Computes one step of the filter network.

    Args:
        images: `[batch, height, width, buffer]`.
        state: `[batch, height / 2, width / 2, channels]`, or None without recurrence.
        weights: Kernels and biases in order.
        depths: Three numbers of 3x3 convolutions: in the encoder before the convolution that computes the features, in
            the decoder before it doubles the size, and in the decoder after that.

    Returns:
        The values of every pixel, the new state, and the remaining weights.
    """
    weights = list(weights)
    encoder, low, high = depths
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


def filter_frame(frame, values, kernel_size, dynamic_bias):
    """Filters a frame with the filters in `values`. Returns the prediction and the filters."""
    taps = kernel_size[0] * kernel_size[1]
    filters = softmax(values[..., :taps])
    bias = values[..., taps:] if dynamic_bias else 0.0
    return local_filter(frame + bias, filters, kernel_size), filters


def predict(frames, steps, weights, depths, state_channels, buffer, kernel_size, dynamic_bias=False, baseline=False):
    """Predicts `[batch, steps, height, width, 1]` from `frames`; the other arguments describe the network."""
    batch, input_frames, height, width, _ = frames.shape
    queue = [frames[:, index] for index in range(input_frames)]
    state = tf.zeros([batch, height // 2, width // 2, state_channels], frames.dtype)
    outputs = []
    for step in range(input_frames - buffer + steps):
        images = tf.concat(queue[step : step + buffer], axis=-1)
        values, state, rest = generate(images, state, weights, depths)
        if baseline:
            frame = convolution(values, rest, linear=True)
        else:
            frame, _ = filter_frame(queue[step + buffer - 1], values, kernel_size, dynamic_bias)
        if step >= input_frames - buffer:
            queue.append(frame)
            outputs.append(frame)
    return tf.stack(outputs, axis=1)
