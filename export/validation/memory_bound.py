# SPDX-License-Identifier: Apache-2.0
"""Computes how much memory a validation needs at least, before any of it is allocated."""

import math
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from keras_dynfilter.export.report import ExportError
from keras_dynfilter.export.trace import Traced
from keras_dynfilter.export.validation.settings import Validation
from keras_dynfilter.untrusted import memory

Shapes = Mapping[str, Iterable[int | None]]  # by input name
SMALL = 2**20  # bytes of inputs below which a model of open sizes is not traced again
COPIES_IN_TRACE = 4  # positions are integers of 64 bits, and masks are computed from them
COPIES_OF_OUTPUTS = 3  # of the model, of the file, and their difference


def limit(settings: Validation) -> int:
    """Returns the limit of the settings in bytes; by default a share of the available memory."""
    return memory.limit() if settings.memory_limit is None else int(settings.memory_limit)


def check_inputs(specs: Mapping[str, tf.TensorSpec], cases: Sequence[Shapes], settings: Validation) -> None:
    """Raises an `ExportError` if the inputs of all cases need more memory than the settings allow."""
    _refuse(sum(_bytes_of_inputs(specs, shapes) for shapes in cases), cases, specs, settings)


def check_trace(specs: Mapping[str, tf.TensorSpec], settings: Validation | None) -> None:
    """Raises an `ExportError` if fixed sizes of the inputs are too large to trace the model.

    Tracing allocates no values of tensors, but masks of the positions along an axis of fixed size.
    """
    shapes = {name: [1 if size is None else size for size in spec.shape.as_list()] for name, spec in specs.items()}
    needed, largest = COPIES_IN_TRACE * _bytes_of_inputs(specs, shapes), limit(settings or Validation())
    if needed > largest:
        raise ExportError(
            f"Expected the export to need at most {memory.in_words(largest)} of memory. Received: inputs "
            f"{_in_words(shapes)}, which need at least {memory.in_words(needed)}. Choose a smaller `input_size`"
        )


def check(traced: Traced, cases: Sequence[Shapes], settings: Validation) -> None:
    """Raises an `ExportError` if the validation needs more memory than the settings allow.

    The validation holds the inputs of all cases, the weights, and, for the largest case, the outputs and the values
    that the op with the largest values reads and writes. A runtime needs more than this, never less.
    """
    specs = traced.signature.specs
    largest = max(cases, key=lambda shapes: _bytes_of_inputs(specs, shapes))
    graph = traced.concrete
    if not _is_static(specs) and _bytes_of_inputs(specs, largest) > SMALL:
        fixed = [tf.TensorSpec(list(largest[name]), spec.dtype, name) for name, spec in specs.items()]
        try:
            graph = traced.retrace(fixed)
        except Exception:  # the model refuses this size, so the validation will leave the case out
            return
    batch = max((next(iter(shape)) or 1 for shape in largest.values()), default=1)
    needed = sum(_bytes_of_inputs(specs, shapes) for shapes in cases)
    needed += sum(variable.shape.num_elements() * variable.dtype.size for variable in graph.variables)
    needed += COPIES_OF_OUTPUTS * sum(_bytes(value, batch) for value in graph.outputs)
    needed += max((_bytes_of_op(op, batch) for op in graph.graph.get_operations()), default=0)
    _refuse(needed, cases, specs, settings)


def _refuse(needed: int, cases: Sequence[Shapes], specs: Mapping[str, tf.TensorSpec], settings: Validation) -> None:
    largest = limit(settings)
    if needed > largest:
        default = ", half of what is available" if settings.memory_limit is None else ""
        shapes = max(cases, key=lambda shapes: _bytes_of_inputs(specs, shapes))
        raise ExportError(
            f"Expected the validation to need at most {memory.in_words(largest)} of memory{default}. Received: inputs "
            f"{_in_words(shapes)}, which need at least {memory.in_words(needed)}. Choose smaller sizes, or set "
            "`memory_limit`, or skip the validation"
        )


def _in_words(shapes: Shapes) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes.values())


def _is_static(specs: Mapping[str, tf.TensorSpec]) -> bool:
    return all(None not in spec.shape.as_list()[1:] for spec in specs.values())


def _bytes_of_inputs(specs: Mapping[str, tf.TensorSpec], shapes: Shapes) -> int:
    return sum(math.prod(shapes[name]) * spec.dtype.size for name, spec in specs.items())  # type: ignore[arg-type]


def _bytes_of_op(op: tf.Operation, batch: int) -> int:
    """Returns the bytes that an op reads and writes. A tensor that it reads twice counts once."""
    return sum(_bytes(value, batch) for value in {value.name: value for value in (*op.inputs, *op.outputs)}.values())


def _bytes(value: tf.Tensor, batch: int) -> int:
    """Returns the bytes of a tensor. Its first axis has the size `batch` if it is open; other open axes count as 1."""
    if value.shape.rank is None or value.dtype in (tf.resource, tf.variant):
        return 0
    sizes: list[int | None] = value.shape.as_list()
    if sizes and sizes[0] is None:
        sizes[0] = batch
    return math.prod(1 if size is None else size for size in sizes) * (value.dtype.size or 1)
