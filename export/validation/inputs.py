# SPDX-License-Identifier: Apache-2.0
"""The inputs that the validation runs a file on."""

import math
import numbers
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_dynfilter.export import signature as signature_module
from keras_dynfilter.export.report import ExportError

BATCH_SIZES = (1, 2, 5)
IMAGE_SIZES = ((32, 32), (33, 47), (7, 5), (64, 96))  # odd, smaller than many windows, divisible by much
OTHER_SIZES = {"length": 9, "frames": 4}


def checked(batch_sizes, image_sizes, tolerance, seed):
    """Returns `batch_sizes` and `image_sizes` as tuples; raises a ValueError that names what is not as described."""
    batches, images = _tuple(batch_sizes), tuple(_tuple(size) for size in _tuple(image_sizes))
    if not batches or not all(map(_is_size, batches)):
        raise ValueError(f"Expected `batch_sizes` to be integers above zero. Received: batch_sizes={batch_sizes!r}")
    if not images or not all(len(size) == 2 and all(map(_is_size, size)) for size in images):
        raise ValueError(
            "Expected `image_sizes` to be pairs (height, width) of integers above zero. "
            f"Received: image_sizes={image_sizes!r}"
        )
    if tolerance is not None and not (
        isinstance(tolerance, numbers.Real) and math.isfinite(tolerance) and tolerance >= 0
    ):
        raise ValueError(
            f"Expected `tolerance` to be None or a number not below zero. Received: tolerance={tolerance!r}"
        )
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"Expected `seed` to be an integer not below zero. Received: seed={seed!r}")
    return batches, images


def _tuple(values):
    return tuple(values) if isinstance(values, Iterable) else ()


def _is_size(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0


def cases(signature, sample_inputs, batch_sizes, image_sizes, seed, representative_data=None):
    """Arrays by name, in a dict by what describes them: every batch size and every image size at least once.

    Random ones; or the representative data, in its own sizes, since a file of 8 bits knows the ranges of no others.
    """
    image_sizes = image_sizes if _has_open_image(signature) else [None]
    batch_sizes = batch_sizes if all(spec.shape[0] is None for spec in signature.specs.values()) else [None]
    rng = np.random.default_rng(seed)
    described = {}
    for index in range(max(len(batch_sizes), len(image_sizes))):
        batch, size = batch_sizes[index % len(batch_sizes)], image_sizes[index % len(image_sizes)]
        if representative_data is None:
            arrays = {name: _random(spec, _shape(spec, batch, size), rng) for name, spec in signature.specs.items()}
        else:
            sample = representative_data[index % len(representative_data)]
            arrays = {name: array if batch is None else _repeated(array, batch) for name, array in sample.items()}
        add(described, arrays)
    if sample_inputs is not None:
        samples = sample_inputs if isinstance(sample_inputs, (list, tuple)) else [sample_inputs]
        for sample in samples:
            add(described, signature.sample(sample, "sample_inputs"))
    return described


def add(described, arrays):
    """Adds a case; returns what describes it."""
    text = ", ".join("x".join(map(str, array.shape)) for array in arrays.values())
    text = f"{len(described)}: {text}" if text in described else text
    described[text] = arrays
    return text


def representative(signature, data):
    """The representative data as a list of arrays by name; None stays None."""
    if data is None:
        return None
    samples = [signature.sample(sample, "representative_data") for sample in data]
    if not samples or any(array.size == 0 for sample in samples for array in sample.values()):
        raise ValueError("Expected `representative_data` to be inputs, at least one and none empty")
    return samples


def task(signature, data, metric):
    """Pairs of inputs, arrays by name, and targets; None where no data is given."""
    if (data is None) != (metric is None) or not (metric is None or callable(metric)):
        raise ValueError(
            "Expected `task_data`, pairs (inputs, targets), and `task_metric`, a function of targets and outputs; both "
            f"or neither. Received: task_data={'None' if data is None else 'some'}, task_metric={metric!r}"
        )
    if data is None:
        return None
    pairs = [(signature.sample(inputs, "task_data"), targets) for inputs, targets in data]
    if not pairs:
        raise ValueError("Expected `task_data` to hold at least one pair (inputs, targets). Received: none")
    return pairs


def _has_open_image(signature):
    shapes = [spec.shape.as_list() for spec in signature.specs.values()]
    named = [(size, name) for shape in shapes for size, name in zip(shape, signature_module.axis_names(shape))]
    return any(size is None and name in ("height", "width") for size, name in named)


def _shape(spec, batch, size):
    sizes = {"batch": batch, **OTHER_SIZES}
    if size is not None:
        sizes["height"], sizes["width"] = size
    shape = spec.shape.as_list()
    return [
        sizes.get(name, 4) if given is None else given for given, name in zip(shape, signature_module.axis_names(shape))
    ]


def _random(spec, shape, rng):
    if spec.dtype.is_floating:
        return rng.standard_normal(shape).astype(_stored(spec.dtype))
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return rng.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(spec.dtype.as_numpy_dtype)
    raise ExportError(f"Random inputs of dtype {spec.dtype.name} cannot be made. Input: {spec.name}")


def _repeated(array, batch):
    return np.take(array, np.arange(batch) % len(array), axis=0)


def _stored(dtype):
    return np.float32 if dtype == tf.bfloat16 else dtype.as_numpy_dtype
