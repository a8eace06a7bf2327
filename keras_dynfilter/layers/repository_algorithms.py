# SPDX-License-Identifier: Apache-2.0
"""Two exact ways to convolve with filters that are mixed from shared base filters, and which of them costs less."""

import math

import tensorflow as tf

from keras_dynfilter.ops import dynamic_conv2d
from keras_dynfilter.ops.backends import composite

PATHS = ("auto", "shared", "direct")

# What a value on the way costs beside a multiply-add, with its gradient: measured on a CPU with AVX-512.
MAP_VALUE = 60  # written by a convolution, read by a matrix product
PATCH_VALUE = 300  # sliced out of the image and concatenated to a patch


def cheaper_path(positions, geometry, channels, base_filters, filters):
    """`"shared"` or `"direct"`, whichever costs less per sample.

    With `depth = taps * channels` and `maps = min(base_filters, depth)`, the multiply-adds and the values that are
    written and read on the way are

                    multiply-adds                                      values
        shared      positions * maps * (depth + filters)               positions * maps
        direct      depth * filters * (positions + base_filters)       positions * depth in patches, depth * filters

    With more base filters than depth, `shared` has the mixing of `direct`, too, to express filters in the values
    themselves; strided and dilated, its convolution is at all positions, of which those in between are dropped.

    `shared` is the rule: its extra is a mixing that is small beside the convolution. `direct` wins for 1x1 windows,
    which need no patches, and for many times more base filters than filters.

    Args:
        positions: Output positions of an image, or None where its size is open: taken as many.
        geometry: The `Geometry` of the window.
        channels: Of the inputs.
        base_filters: Filters in the repository.
        filters: Filters that are mixed from them.
    """
    depth = geometry.taps * channels
    maps = min(base_filters, depth)
    positions = math.inf if positions is None else positions
    skipped = math.prod(geometry.strides) if _strided_and_dilated(geometry) else 1
    # Both per position, so that infinitely many are no special case.
    mixing = depth * filters * (base_filters + MAP_VALUE) / positions
    shared = maps * (depth * skipped + filters + MAP_VALUE) + (mixing if maps < base_filters else 0)
    direct = depth * (filters + (PATCH_VALUE if geometry.taps > 1 else 0)) + mixing
    return "shared" if shared <= direct else "direct"


def mixed(bank, coefficients):
    """Filters, `[batch, kernel_h, kernel_w, channels, filters]`.

    Args:
        bank: The base filters, `[kernel_h, kernel_w, channels, base_filters]`.
        coefficients: `[batch, base_filters, filters]`.
    """
    return tf.einsum("uvcm,nmf->nuvcf", bank, coefficients)


def shared(inputs, bank, coefficients, geometry):
    """Convolves all samples with the base filters, then mixes the maps per sample: the convolution is linear.

    More base filters than values in a filter are linearly dependent. Then the unit filters take their place, of which
    a filter is mixed with its own values.
    """
    *window, base_filters = bank.shape.as_list()
    depth = math.prod(window)
    if depth < base_filters:
        coefficients = tf.einsum("dm,nmf->ndf", tf.reshape(bank, [depth, base_filters]), coefficients)
        bank = tf.reshape(tf.eye(depth, dtype=bank.dtype), [*window, depth])
    maps = _convolved(inputs, bank, geometry)
    batch, height, width, channels = composite.sizes(maps)
    mixes = tf.matmul(tf.reshape(maps, [batch, height * width, channels]), coefficients)
    return tf.reshape(mixes, [batch, height, width, coefficients.shape[-1]])


def direct(inputs, bank, coefficients, geometry):
    """Mixes the filters of every sample and convolves with them."""
    filters = mixed(bank, coefficients)
    return dynamic_conv2d(inputs, filters, geometry.strides, geometry.dilation_rate, geometry.padding)


def _convolved(inputs, bank, geometry):
    if _strided_and_dilated(geometry):  # TensorFlow has no gradients of both at once on CPUs
        maps = tf.nn.convolution(inputs, bank, padding=geometry.padding.upper(), dilations=geometry.dilation_rate)
        return maps[:, :: geometry.strides[0], :: geometry.strides[1]]
    if geometry.strides == (1, 1):
        return tf.nn.convolution(inputs, bank, padding=geometry.padding.upper(), dilations=geometry.dilation_rate)
    # Symmetric also with strides, where TensorFlow's SAME is not. With padding as an argument of the convolution, its
    # gradients leave the fast kernels on CPUs.
    padded = tf.pad(inputs, [[0, 0], *(list(pads) for pads in geometry.pads), [0, 0]])
    return tf.nn.conv2d(padded, bank, geometry.strides, "VALID")


def _strided_and_dilated(geometry):
    return geometry.strides != (1, 1) and geometry.dilation_rate != (1, 1)
