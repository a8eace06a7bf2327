# SPDX-License-Identifier: Apache-2.0
"""Holds the settings that the caller chooses for the validation of an exported file."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_dynfilter.ops import checks


@dataclasses.dataclass(frozen=True)
class Task:
    """Labelled data and a metric, by which the validation scores both the model and the file.

    Attributes:
        data: Pairs `(inputs, targets)`, such as the batches of a `tf.data.Dataset`. Inputs have the structure that the
            model takes, or are a dict by input name. The validation also compares the outputs for these inputs.
        metric: Function of targets and outputs, such as `keras.losses.mean_squared_error`. If the model has one output,
            even in a dict, the function receives its tensor, otherwise a dict of output tensors by name. The report has
            the mean over all samples. A `keras.metrics.Metric` accumulates its calls, so it is refused.

    Raises:
        ValueError: `metric` cannot be called or is a `keras.metrics.Metric`, or `data` cannot be iterated over.
    """

    data: Iterable[tuple[Any, Any]]
    metric: Callable[[Any, Any], Any]

    def __post_init__(self) -> None:
        # A `Metric` would mix the scores of all batches, and of the model and the file.
        if not callable(self.metric) or isinstance(self.metric, keras.metrics.Metric):
            raise ValueError(
                "Expected `metric` to be a function of targets and outputs, such as keras.losses.mean_squared_error. "
                f"Received: metric={self.metric!r}"
            )
        if not isinstance(self.data, Iterable):
            raise ValueError(
                f"Expected `data` to be pairs (inputs, targets). Received: data of type {type(self.data).__name__}"
            )

    @property
    def name(self) -> str:
        """Name of the metric."""
        return getattr(self.metric, "__name__", type(self.metric).__name__)


@dataclasses.dataclass(frozen=True)
class Validation:
    """Settings of the validation, which runs the file in a fresh process and compares its outputs with the model.

    Attributes:
        batch_sizes: Batch sizes to run if the model leaves the batch size open.
        image_sizes: Pairs `(height, width)` to run if the model leaves them open. Sizes that the model itself refuses
            are skipped, and the report lists them.
        sample_inputs: Inputs to run in addition to the random inputs: a list of samples, or one sample that is neither
            a list nor a tuple. A sample is a dict by input name, or has the structure that the model takes.
        tolerance: Largest allowed difference, relative to the largest magnitude of an output. The default depends on
            the dtypes that the model computes in and on the precision of the file.
        task: A `Task`: labelled data and a metric, by which the model and the file are scored.
        seed: Seed of the random inputs.
        memory_limit: Largest number of bytes that the validation may need. The export computes from the shapes of all
            tensors how many bytes it needs at least, and refuses before it allocates them. None: half of the memory
            that is available.

    Raises:
        ValueError: A value is not as described.
    """

    batch_sizes: Sequence[int] = (1, 2, 5)
    # Odd sizes, a size smaller than many filter windows, and sizes that networks can halve several times.
    image_sizes: Sequence[tuple[int, int]] = ((32, 32), (33, 47), (7, 5), (64, 96))
    sample_inputs: Any = None
    tolerance: float | None = None
    task: Task | None = None
    seed: int = 0
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        batch_sizes, image_sizes = _tuple(self.batch_sizes), tuple(map(_tuple, _tuple(self.image_sizes)))
        if not batch_sizes or not all(map(_is_size, batch_sizes)):
            raise ValueError(
                f"Expected `batch_sizes` to be integers above zero. Received: batch_sizes={self.batch_sizes!r}"
            )
        if not image_sizes or not all(len(size) == 2 and all(map(_is_size, size)) for size in image_sizes):
            raise ValueError(
                "Expected `image_sizes` to be pairs (height, width) of integers above zero. "
                f"Received: image_sizes={self.image_sizes!r}"
            )
        if self.tolerance is not None:
            checks.number(self.tolerance, "tolerance", at_least=0, expected="None or a number not below zero")
        if self.memory_limit is not None:
            checks.number(self.memory_limit, "memory_limit", above=0, expected="None or a positive number of bytes")
        if not checks.integer(self.seed) or self.seed < 0:
            raise ValueError(f"Expected `seed` to be an integer not below zero. Received: seed={self.seed!r}")
        if self.task is not None and not isinstance(self.task, Task):
            raise ValueError(f"Expected `task` to be a Task or None. Received: task={self.task!r}")
        object.__setattr__(self, "batch_sizes", batch_sizes)
        object.__setattr__(self, "image_sizes", image_sizes)


def chosen(validate: bool | Validation) -> Validation | None:
    """Returns the settings that the `validate` argument of `export` selects, or None for no validation.

    Raises:
        ValueError: `validate` is neither a boolean nor a `Validation`.
    """
    if isinstance(validate, Validation):
        return validate
    if not isinstance(validate, bool):
        raise ValueError(
            f"Expected `validate` to be True, False or an export.Validation. Received: validate={validate!r}"
        )
    return Validation() if validate else None


def _tuple(values: Any) -> tuple[Any, ...]:
    """Returns the values as a tuple, which is empty if they cannot be iterated over."""
    return tuple(values) if isinstance(values, Iterable) else ()


def _is_size(value: Any) -> bool:
    return checks.integer(value) and value > 0
