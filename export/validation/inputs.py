# SPDX-License-Identifier: Apache-2.0
"""Creates the inputs on which the validation runs the model and the file."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dynfilter.export import dtypes
from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.signature import Signature, axis_names
from keras_dynfilter.export.validation import memory_bound
from keras_dynfilter.export.validation.settings import Task, Validation

# Sizes of open axes other than batch, height and width.
SIZES_OF_OTHER_AXES = {"length": 9, "frames": 4}
SIZE_OF_UNNAMED_AXES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of the model and of the file.

    Attributes:
        name: The shapes of the inputs, as in `"2x33x47x3"`; unique among the cases of a validation.
        inputs: Arrays by input name.
        has_targets: Whether the inputs come from the data of the task.
        targets: The targets of these inputs.
    """

    name: str
    inputs: dict[str, np.ndarray]
    has_targets: bool = False
    targets: Any = None


def cases(
    signature: Signature, settings: Validation, representative_data: list[dict[str, np.ndarray]] | None = None
) -> list[Case]:
    """Returns the cases of a validation: random inputs, then the sample inputs, then the data of the task.

    Every batch size and every image size of the settings occurs at least once if the model leaves these sizes open. The
    ranges of a file in int8 suit its representative data only. So this data replaces the random inputs, in the image
    sizes of the data.

    Raises:
        ValueError: Sample inputs or data of the task do not suit the model.
        ExportError: There are no random inputs for a dtype of the model, or they need too much memory.
    """
    fixed_batch_sizes = {spec.shape[0] for spec in signature.specs.values()} - {None}
    batch_sizes: Sequence[int | None] = [None] if fixed_batch_sizes else settings.batch_sizes
    image_sizes: Sequence[tuple[int, int] | None] = [None]
    if _has_open_image_size(signature):
        image_sizes = settings.image_sizes
    rng = np.random.default_rng(settings.seed)
    sizes = [
        (batch_sizes[index % len(batch_sizes)], image_sizes[index % len(image_sizes)])
        for index in range(max(len(batch_sizes), len(image_sizes)))
    ]
    shapes = [
        {name: _fixed_shape(spec, batch or max(fixed_batch_sizes), image) for name, spec in signature.specs.items()}
        for batch, image in sizes
    ]
    if representative_data is None:
        memory_bound.check_inputs(signature.specs, shapes, settings)
    collected: list[Case] = []
    for index, (batch_size, _) in enumerate(sizes):
        if representative_data is None:
            inputs = {name: _random(spec, shapes[index][name], rng) for name, spec in signature.specs.items()}
        else:
            sample = representative_data[index % len(representative_data)]
            inputs = {
                name: array if batch_size is None else _repeated(array, batch_size) for name, array in sample.items()
            }
        _add(collected, inputs)
    if settings.sample_inputs is not None:
        samples = settings.sample_inputs
        for sample in samples if isinstance(samples, (list, tuple)) else [samples]:
            _add(collected, signature.arrays_by_name(sample, "sample_inputs"))
    if settings.task is not None:
        for inputs, targets in _labelled(signature, settings.task):
            _add(collected, inputs, has_targets=True, targets=targets)
    return collected


def representative(signature: Signature, data: Iterable[Any] | None) -> list[dict[str, np.ndarray]] | None:
    """Returns the representative data as a list of arrays by input name. None stays None.

    Raises:
        ValueError: The data is empty, does not suit the model, or holds a value that is not finite.
    """
    if data is None:
        return None
    if not isinstance(data, Iterable):
        raise ValueError(f"Expected `representative_data` to be inputs. Received: {type(data).__name__}")
    samples = [signature.arrays_by_name(sample, "representative_data") for sample in data]
    if not samples or any(array.size == 0 for sample in samples for array in sample.values()):
        raise ValueError("Expected `representative_data` to be inputs, at least one and none empty")
    for index, sample in enumerate(samples):
        for name, array in sample.items():
            # One such value would make the range of every value that depends on it infinite.
            wrong = dtypes.count_not_finite(array)
            if wrong:
                expected = "Expected `representative_data` to be finite numbers"
                raise ValueError(f"{expected}. Received: {wrong} NaN or infinite values of {name} in sample {index}")
    return samples


def _labelled(signature: Signature, task: Task) -> list[tuple[dict[str, np.ndarray], Any]]:
    """Returns the data of the task as pairs of arrays by input name, and targets."""
    pairs = []
    for pair in task.data:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"Expected `task.data` to hold pairs (inputs, targets). Received: {type(pair).__name__}")
        pairs.append((signature.arrays_by_name(pair[0], "task.data"), pair[1]))
    if not pairs:
        raise ValueError("Expected `task.data` to hold at least one pair (inputs, targets). Received: none")
    return pairs


def _add(collected: list[Case], inputs: dict[str, np.ndarray], **options: Any) -> None:
    """Adds a case with a unique name."""
    name = ", ".join("x".join(map(str, array.shape)) for array in inputs.values())
    if name in {case.name for case in collected}:
        name = f"{len(collected)}: {name}"
    collected.append(Case(name, inputs, **options))


def _has_open_image_size(signature: Signature) -> bool:
    shapes = [spec.shape.as_list() for spec in signature.specs.values()]
    named_sizes = [(size, axis) for shape in shapes for size, axis in zip(shape, axis_names(shape))]
    return any(size is None and axis in ("height", "width") for size, axis in named_sizes)


def _fixed_shape(spec: tf.TensorSpec, batch_size: int, image_size: tuple[int, int] | None) -> list[int]:
    """Returns the shape of `spec` with a size for every open axis."""
    sizes: dict[str, Any] = {"batch": batch_size, **SIZES_OF_OTHER_AXES}
    if image_size is not None:
        sizes["height"], sizes["width"] = image_size
    shape = spec.shape.as_list()
    return [
        sizes.get(axis, SIZE_OF_UNNAMED_AXES) if size is None else size for size, axis in zip(shape, axis_names(shape))
    ]


def _random(spec: tf.TensorSpec, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Returns normal floating-point numbers, integers 0 and 1 (0 to 255 for uint8), booleans, or short texts."""
    if spec.dtype.is_floating:
        # A file of NumPy arrays cannot store bfloat16; the values are cast when the model is called.
        return dtypes.storable(rng.standard_normal(shape).astype(spec.dtype.as_numpy_dtype))
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return rng.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(spec.dtype.as_numpy_dtype)
    if spec.dtype == tf.string:
        return rng.choice(["", "a", "b", "a b"], shape)
    raise ExportError(f"Random inputs of dtype {spec.dtype.name} cannot be made. Input: {spec.name}")


def _repeated(array: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns `batch_size` samples. Repeats the samples of the array if there are too few."""
    return np.take(array, np.arange(batch_size) % len(array), axis=0)
