# SPDX-License-Identifier: Apache-2.0
"""Two exact algorithms that convolve with filters mixed from shared base filters, and the choice between them."""

import math

import tensorflow as tf

from keras_dynfilter.ops import dynamic_conv2d, layout
from keras_dynfilter.ops.geometry import Geometry

ALGORITHMS = ("auto", "shared", "per_sample")

# Cost of an intermediate value relative to a multiply-add, gradient included: measured on a CPU with AVX-512.
MAP_VALUE = 60  # written by a convolution, read by a matrix product
PATCH_VALUE = 300  # sliced out of the image and concatenated into a patch


def cheaper_algorithm(positions: int | None, geometry: Geometry, channels: int, base_filters: int, filters: int) -> str:
    """Returns `"shared"` or `"per_sample"`, whichever costs less per sample.

    With `depth = taps * channels` and `maps = min(base_filters, depth)`, the multiply-adds and the intermediate values
    per sample are

                    multiply-adds                                      values
        shared      positions * maps * (depth + filters)               positions * maps
        per_sample  depth * filters * (positions + base_filters)       positions * depth in patches, depth * filters

    With more base filters than `depth`, `shared` also mixes the filters like `per_sample`, to express them in unit
    filters. With both strides and dilation, the convolution of `shared` computes all positions and drops the positions
    between the strides.

    `shared` is cheaper in most cases, because mixing the maps costs little compared to the convolution. `per_sample` is
    often cheaper for 1x1 windows, which need no patches, and for many times more base filters than filters.

    Args:
        positions: Number of output positions of an image. None: unknown, which counts as infinitely many.
        geometry: The `Geometry` of the window.
        channels: Number of channels of the inputs.
        base_filters: Number of filters in the repository.
        filters: Number of filters that are mixed for each sample.
    """
    depth = geometry.taps * channels
    maps = min(base_filters, depth)
    count = math.inf if positions is None else positions
    skipped = math.prod(geometry.strides) if _strided_and_dilated(geometry) else 1
    # All costs are per position, so that an infinite number of positions is not a special case.
    mixing = depth * filters * (base_filters + MAP_VALUE) / count
    shared_cost = maps * (depth * skipped + filters + MAP_VALUE) + (mixing if maps < base_filters else 0)
    per_sample_cost = depth * (filters + (PATCH_VALUE if geometry.taps > 1 else 0)) + mixing
    return "shared" if shared_cost <= per_sample_cost else "per_sample"


def mixed(bank: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """Mixes the filters of every sample: `[batch, kernel_h, kernel_w, channels, filters]`.

    Args:
        bank: The base filters, `[kernel_h, kernel_w, channels, base_filters]`.
        coefficients: `[batch, base_filters, filters]`.
    """
    return tf.einsum("uvcm,nmf->nuvcf", bank, coefficients)


def shared(inputs: tf.Tensor, bank: tf.Tensor, coefficients: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Convolves all samples with the base filters, then mixes the maps of each sample.

    The result is exact because the convolution is linear in its filters. If there are more base filters than values in
    a filter, the base filters are linearly dependent. Unit filters (one value is 1, the others are 0) then replace
    them, and the values of a filter are its coefficients.

    Args:
        inputs: `[batch, height, width, channels]`.
        bank: `[kernel_h, kernel_w, channels, base_filters]`.
        coefficients: `[batch, base_filters, filters]`.
        geometry: A `Geometry`.

    Returns:
        `[batch, out_height, out_width, filters]`.
    """
    *window, base_filters = bank.shape.as_list()
    depth = math.prod(window)
    if depth < base_filters:
        coefficients = tf.einsum("dm,nmf->ndf", tf.reshape(bank, [depth, base_filters]), coefficients)
        bank = tf.reshape(tf.eye(depth, dtype=bank.dtype), [*window, depth])
    maps = _convolve(inputs, bank, geometry)
    batch, height, width, channels = layout.sizes(maps)
    mixes = tf.matmul(tf.reshape(maps, [batch, height * width, channels]), coefficients)
    return tf.reshape(mixes, [batch, height, width, coefficients.shape[-1]])


def per_sample(inputs: tf.Tensor, bank: tf.Tensor, coefficients: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Mixes the filters of every sample, then convolves the sample with them.

    The arguments are the arguments of `shared`, and the result is equal up to rounding.
    """
    filters = mixed(bank, coefficients)
    return dynamic_conv2d(inputs, filters, geometry.strides, geometry.dilation_rate, geometry.padding)


def _convolve(inputs, bank, geometry):
    if _strided_and_dilated(geometry):  # on CPUs, TensorFlow has no gradients for this case
        maps = tf.nn.convolution(inputs, bank, padding=geometry.padding.upper(), dilations=geometry.dilation_rate)
        return maps[:, :: geometry.strides[0], :: geometry.strides[1]]
    if geometry.strides == (1, 1):
        return tf.nn.convolution(inputs, bank, padding=geometry.padding.upper(), dilations=geometry.dilation_rate)
    # Strided windows are centred here, but not with TensorFlow's SAME. With a separate tf.pad, the gradients use the
    # fast CPU kernels; with explicit padding in the convolution, they do not.
    padded = tf.pad(inputs, [[0, 0], *(list(pads) for pads in geometry.pads), [0, 0]])
    return tf.nn.conv2d(padded, bank, geometry.strides, "VALID")


def _strided_and_dilated(geometry):
    return geometry.strides != (1, 1) and geometry.dilation_rate != (1, 1)
