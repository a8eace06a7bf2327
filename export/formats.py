# SPDX-License-Identifier: Apache-2.0
"""Defines the table of export formats, from which code, help text of the command line and documentation follow.

A format needs a row in `FORMATS`, a module in `writers/` and its runtime in `validation/`. "Add an export format" in
CONTRIBUTING.md lists all steps.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_dynfilter import environment

OPS = {
    "portable": "standard ops, which every runtime has",
    "native": "the compiled ops of keras_dynfilter. A SavedModel needs their library; an ONNX file runs faster with it",
}
PRECISIONS = {
    "float32": "32-bit weights, computes in float32, as the model does",
    "float16": "16-bit weights, computes in float32",
    "dynamic_int8": "8-bit weights, computes products with them in 8 bits and everything else in float32",
    "int8": "8-bit weights and values; representative data determine the ranges of the values",
}


@dataclass(frozen=True)
class Format:
    """One export format: a row of the table.

    Attributes:
        name: The value of `format=`.
        suffix: Suffix of the file; empty for a folder.
        ops: Values of `ops=` that the format supports.
        opsets: Supported ONNX opsets, oldest first; the last one is the default. Empty if the format has no opsets.
        modules: Modules that writing and validating need, in addition to TensorFlow.
        extra: The extra of this package that installs `modules`, or None.
        runtime: The runtime on which the validation runs the file.
        write: Function that writes a traced model to a path and returns the number of nodes of each op.
        identifiers: Whether input names must be identifiers. Names that are not are then changed.
        precisions: Values of `precision=` that the format supports; the first one is the default. Empty if files keep
            the dtypes of the model.
        unrolls: Whether loops over time become copies of their step, where the number of steps is fixed.
    """

    name: str
    suffix: str
    ops: tuple[str, ...]
    opsets: tuple[int, ...]
    modules: tuple[str, ...]
    extra: str | None
    runtime: str
    write: Callable[..., dict[str, int]]
    identifiers: bool = False
    precisions: tuple[str, ...] = ()
    unrolls: bool = False

    @property
    def kind(self) -> str:
        """What the format writes: a folder, or a file with its suffix."""
        return f"`*{self.suffix}` file" if self.suffix else "folder"


# The writers import optional packages. A writer is therefore imported only when its format is written.
def _write_saved_model(traced: Any, path: Path, opset: None) -> dict[str, int]:
    from keras_dynfilter.export.writers import saved_model

    return saved_model.write(traced, path, opset)


def _write_onnx(traced: Any, path: Path, opset: int) -> dict[str, int]:
    from keras_dynfilter.export.writers import onnx

    return onnx.write(traced, path, opset)


def _write_litert(traced: Any, path: Path, opset: None, **options: Any) -> dict[str, int]:
    from keras_dynfilter.export.writers import litert

    return litert.write(traced, path, opset, **options)


FORMATS = {
    row.name: row
    for row in (
        Format(
            name="saved_model",
            suffix="",
            ops=("portable", "native"),
            opsets=(),
            modules=(),
            extra=None,
            runtime="tensorflow",
            write=_write_saved_model,
            identifiers=True,
        ),
        Format(
            name="onnx",
            suffix=".onnx",
            ops=("portable", "native"),
            opsets=(15, 16, 17, 18),
            modules=("onnx", "onnxruntime", "tf2onnx"),
            extra="export",
            runtime="onnxruntime",
            write=_write_onnx,
        ),
        Format(
            name="litert",
            suffix=".tflite",
            ops=("portable",),
            opsets=(),
            modules=("ai_edge_litert",),
            extra="litert",
            runtime="ai_edge_litert",
            write=_write_litert,
            identifiers=True,
            precisions=("float32", "float16", "dynamic_int8", "int8"),
            unrolls=True,  # loops need lists of tensors, which LiteRT lacks if the batch size is open
        ),
    )
}


def hint(value: object, allowed: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` with the most similar value of `allowed`, or an empty text if none is similar."""
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def choose(format: str, ops: str, opset: int | None) -> tuple[Format, int | None]:
    """Returns the `Format` and the opset to write. It is called first, so that wrong arguments fail at once.

    Raises:
        ValueError: The format, ops or opset is unknown, or the format does not support the combination.
        ImportError: A module that the format needs is not installed, or cannot be imported.
    """
    if not isinstance(format, str) or format not in FORMATS:
        expected = f"Expected `format` to be one of {_listed(FORMATS)}"
        raise ValueError(f"{expected}. Received: format={format!r}.{hint(format, FORMATS)}")
    row = FORMATS[format]
    if not isinstance(ops, str) or ops not in OPS:
        raise ValueError(f"Expected `ops` to be one of {_listed(OPS)}. Received: ops={ops!r}.{hint(ops, OPS)}")
    if ops not in row.ops:
        raise ValueError(f"Expected `ops` to be {_listed(row.ops)}: {format} does not support {ops} ops yet.")
    if opset is not None and opset not in row.opsets:
        expected = f"one of {_listed(row.opsets)}" if row.opsets else f"None: {format} has no opsets"
        raise ValueError(f"Expected `opset` to be {expected}. Received: opset={opset!r}")
    missing = [name for name in row.modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Export to {format} needs {', '.join(missing)}, not installed here: "
            f"{environment.install_command(str(row.extra))}"
        )
    for name in row.modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a package that does not fit another one can raise anything
            raise ImportError(
                f"Export to {format} needs {name}, which is installed but cannot be imported: {error!r}. Versions that "
                f"fit: {environment.install_command(str(row.extra))}"
            ) from error
    return row, opset if opset is not None or not row.opsets else row.opsets[-1]


def choose_precision(row: Format, precision: str | None, representative_data: object = None) -> str | None:
    """Returns the precision to write; None if the format has no precisions.

    Raises:
        ValueError: The format does not support the precision, or representative data is missing or superfluous.
    """
    if precision is None and row.precisions:
        precision = row.precisions[0]
    if precision is not None and precision not in row.precisions:
        expected = (
            f"one of {_listed(row.precisions)}" if row.precisions else f"None: {row.name} keeps the model's dtypes"
        )
        near = hint(precision, row.precisions)
        raise ValueError(f"Expected `precision` to be {expected}. Received: precision={precision!r}.{near}")
    if precision == "int8" and representative_data is None:
        raise ValueError(
            "Expected `representative_data` with precision 'int8', which takes the ranges of all values from these "
            "inputs. Received: precision='int8' and no data"
        )
    if precision != "int8" and representative_data is not None:
        raise ValueError(
            "Expected `representative_data` only with precision 'int8'. "
            f"Received: precision={precision!r} and some data"
        )
    return precision


def table() -> str:
    """Returns the formats as a Markdown table."""
    header = ("format", "written as", "ops", "precision", "opsets", "extra", "validated on")
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join(['---'] * len(header))} |"]
    for row in FORMATS.values():
        opsets = f"{row.opsets[0]} to {row.opsets[-1]}" if row.opsets else "-"
        precisions = ", ".join(row.precisions) or "of the model"
        cells = (f"`{row.name}`", row.kind, ", ".join(row.ops), precisions, opsets, row.extra or "-", row.runtime)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(repr(value) for value in values)
