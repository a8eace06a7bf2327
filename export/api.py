# SPDX-License-Identifier: Apache-2.0
"""Exports a model: checks the arguments, traces the model, writes the file, validates it and moves it into place."""

import contextlib
import importlib
import os
import pathlib
import platform
import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_dynfilter.export import formats
from keras_dynfilter.export.atomic_write import staged
from keras_dynfilter.export.report import Report, ValidationError
from keras_dynfilter.export.signature import model_signature
from keras_dynfilter.export.trace import trace
from keras_dynfilter.export.validation import compare, inputs, memory_bound, settings
from keras_dynfilter.export.validation.settings import Validation
from keras_dynfilter.ops import checks
from keras_dynfilter.version import __version__

# What a folder that the export replaces may hold.
SAVED_MODEL = ("saved_model.pb", "variables", "assets", "assets.extra", "fingerprint.pb", "keras_metadata.pb")


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "saved_model",
    ops: str = "portable",
    validate: bool | Validation = True,
    *,
    opset: int | None = None,
    precision: str | None = None,
    representative_data: Iterable[Any] | None = None,
    input_size: tuple[int, int] | None = None,
    input_signature: Any = None,
    verbose: bool = True,
) -> Report:
    """Exports a Keras model and validates that the file computes what the model computes.

    The model is traced again, with standard ops or with the compiled ops. A fresh process, in which this package cannot
    be imported, then loads the file and runs it on inputs of several sizes. Every output is compared with the output of
    the model. A file that fails is removed; an earlier file at `path` then stays unchanged.

    Args:
        model: A built `keras.Model`: functional, sequential or subclassed.
        path: File or folder to write. Missing parent folders are created.
        format: `"saved_model"`, `"onnx"` or `"litert"`.
        ops: `"portable"` writes standard ops, which every runtime has. `"native"` writes the compiled ops of
            keras_dynfilter: a SavedModel then needs their library, and LiteRT does not support them. An ONNX file with
            native ops runs on every onnxruntime, and faster with the library of `ort_library`.
        validate: True validates with the default settings, a `Validation` with its own settings, and False skips the
            validation.
        opset: ONNX opset, 15 to 18; the default is 18.
        precision: Precision of a LiteRT file: `"float32"` (the default), `"float16"`, `"dynamic_int8"` or `"int8"`.
        representative_data: Typical inputs of the model, for `precision="int8"` only. They determine the ranges of all
            values. Each input is a dict by input name, or has the structure that the model takes.
        input_size: `(height, width)` of the images, to fix sizes that the model leaves open.
        input_signature: For subclassed models: `tf.TensorSpec`s in the structure that the model takes, or a dict by
            argument name if `call` takes several arguments.
        verbose: Whether to print the report.

    Returns:
        A `Report`.

    Raises:
        ValueError: An argument is not as described, or the format does not support it.
        ImportError: A package that the format needs is missing.
        ExportError: The model cannot be exported in this way.
        ValidationError: The file was written but is wrong. The `report` of the exception describes the differences.
        OSError: The file cannot be written.

    Example:

    >>> from keras_dynfilter.export import Validation
    >>> report = export(model, "model.onnx", format="onnx", validate=Validation(batch_sizes=(1, 8), tolerance=1e-4))
    """
    row, opset = formats.choose(format, ops, opset)
    precision = formats.choose_precision(row, precision, representative_data)
    path = checked_path(path, row)
    chosen = settings.chosen(validate)
    signature = model_signature(model, input_signature, _checked_size(input_size), row.identifiers)
    representative_data = inputs.representative(signature, representative_data)
    cases = [] if chosen is None else inputs.cases(signature, chosen, representative_data)
    memory_bound.check_trace(signature.specs, chosen)
    options = {"precision": precision, "representative_data": representative_data} if row.precisions else {}
    seconds: dict[str, float] = {}
    with _timed(seconds, "trace"):
        traced = trace(model, signature, ops, row.unrolls)
    if chosen is not None:
        shapes = [{name: array.shape for name, array in case.inputs.items()} for case in cases]
        memory_bound.check(traced, shapes, chosen)
    with staged(path) as file:
        with _timed(seconds, "write"):
            nodes = row.write(traced, file, opset, **options)
        report = Report(
            path=str(path),
            format=format,
            ops=ops,
            opset=opset,
            precision=precision,
            inputs=traced.inputs,
            outputs=traced.outputs,
            nodes=nodes,
            bytes=_sizes(file),
            versions=_versions(row),
            seconds=seconds,
        )
        if chosen is not None:
            with _timed(seconds, "validate"):
                report.validation = compare.validate(model, traced, file, row.runtime, cases, chosen, precision)
            if not report.passed:
                raise ValidationError(f"The exported file is wrong and was removed:\n{report}", report)
    if verbose:
        print(report)
    return report


def checked_path(path: str | os.PathLike, row: formats.Format) -> pathlib.Path:
    """Returns `path` as a `pathlib.Path`, after checks that the format can be written there.

    Raises:
        ValueError: The format cannot be written to `path`; the message gives the reason.
    """
    path = pathlib.Path(path)
    suffixes = {other.suffix for other in formats.FORMATS.values() if other.suffix}
    has_wrong_suffix = path.suffix != row.suffix if row.suffix else path.suffix in suffixes
    if has_wrong_suffix:
        raise ValueError(f"Expected `path` to be a {row.kind} for {row.name}. Received: path={str(path)!r}")
    if row.suffix and path.is_dir():
        raise ValueError(f"Expected `path` to be a file. Received a folder: path={str(path)!r}")
    if not row.suffix and os.path.lexists(path):
        expected = "Expected `path` to be a new folder or a SavedModel to replace"
        if not (path / "saved_model.pb").is_file():
            raise ValueError(f"{expected}. Received: path={str(path)!r}")
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in SAVED_MODEL)
        if others:  # they would be lost
            raise ValueError(f"{expected}. Received: path={str(path)!r}, which also holds {', '.join(others[:5])}")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"Expected `path` to be in a folder that can be written. Received: path={str(path)!r}")
    return path


def _checked_size(input_size: tuple[int, int] | None) -> tuple[int, int] | None:
    if input_size is None:
        return None
    size = tuple(input_size) if isinstance(input_size, Iterable) else ()
    if len(size) != 2 or not all(checks.integer(value) and value > 0 for value in size):
        raise ValueError(f"Expected `input_size` to be (height, width). Received: input_size={input_size!r}")
    height, width = size
    return int(height), int(width)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Stores the duration of the block under the name of the stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _sizes(path: pathlib.Path) -> dict[str, int]:
    """Returns the sizes in bytes: of the file, or of every file in the folder, by relative path."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    return {str(file.relative_to(root)): file.stat().st_size for file in files if file.is_file()}


def _versions(row: formats.Format) -> dict[str, str]:
    """Returns the versions of the packages that write the format. The validation adds the version of the runtime."""
    packages = ("keras", "tensorflow", "numpy", *(name for name in row.modules if name != row.runtime))
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    return {"keras_dynfilter": __version__, "python": platform.python_version(), **versions}
