# SPDX-License-Identifier: Apache-2.0
"""What can be exported: the one table that drives the code, the help text and the documentation.

A new format is a row here, a module with a function `write(traced, path, opset)`, which gets `precision` and
`representative_data` too where the format has precisions, and the runtime that the validation runs it on, in `_runner`.
"""

import dataclasses
import difflib
import importlib
import importlib.util

OPS = {
    "portable": "composed of standard ops: stock runtimes run the file",
    "native": "the compiled ops of keras_dynfilter stay: a SavedModel needs their library, ONNX runs faster with it",
}
PRECISIONS = {
    "float32": "as the model",
    "float16": "weights of half the size; computes in float32",
    "dynamic_int8": "weights of 8 bits; computes products of them in 8 bits, the rest in float32",
    "int8": "weights and all that is computed of 8 bits, with ranges taken from representative data",
}


@dataclasses.dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes:
        name: The value of `format=`.
        suffix: How the path ends; empty for a folder.
        ops: The modes of `OPS` it can be written in.
        opsets: Opset versions, oldest first and default last; empty if the format has none.
        modules: Modules that must be importable, beside TensorFlow, to write and to validate.
        extra: The extra of the package that installs them, or None.
        runtime: What the validation runs the file on.
        writer: Module with the function `write`.
        identifiers: Whether input names must be identifiers, which they are then made.
        precisions: Those of `PRECISIONS` it can be written in, default first; empty if it keeps that of the model.
    """

    name: str
    suffix: str
    ops: tuple
    opsets: tuple
    modules: tuple
    extra: str | None
    runtime: str
    writer: str
    identifiers: bool = False
    precisions: tuple = ()

    @property
    def kind(self):
        return f"`*{self.suffix}` file" if self.suffix else "folder"

    def write(self, traced, path, opset, **options):
        """Writes the traced model to `path`; returns the histogram of its nodes."""
        return importlib.import_module(self.writer).write(traced, path, opset, **options)


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
            writer="keras_dynfilter.export.writers.saved_model",
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
            writer="keras_dynfilter.export.writers.onnx",
        ),
        Format(
            name="litert",
            suffix=".tflite",
            ops=("portable",),
            opsets=(),
            modules=("ai_edge_litert",),
            extra="litert",
            runtime="ai_edge_litert",
            writer="keras_dynfilter.export.writers.litert",
            identifiers=True,
            precisions=("float32", "float16", "dynamic_int8", "int8"),
        ),
    )
}


def hint(value, allowed):
    """` Did you mean 'x'?` with the nearest of `allowed`, or nothing if none is near."""
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def choose(format, ops, opset):
    """Returns the `Format` and the opset to write; every wrong choice ends here, before any work.

    Raises:
        ValueError: The format, ops or opset is unknown, or the format cannot be written so.
        ImportError: A module that the format needs is not installed.
    """
    if format not in FORMATS:
        expected = f"Expected `format` to be one of {_listed(FORMATS)}"
        raise ValueError(f"{expected}. Received: format={format!r}.{hint(format, FORMATS)}")
    row = FORMATS[format]
    if ops not in OPS:
        raise ValueError(f"Expected `ops` to be one of {_listed(OPS)}. Received: ops={ops!r}.{hint(ops, OPS)}")
    if ops not in row.ops:
        raise ValueError(f"Expected `ops` to be {_listed(row.ops)}: {format} does not support {ops} ops yet.")
    if opset is not None and opset not in row.opsets:
        which = f"one of {_listed(row.opsets)}" if row.opsets else f"None: {format} has no opsets"
        raise ValueError(f"Expected `opset` to be {which}. Received: opset={opset!r}")
    missing = [name for name in row.modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Export to {format} needs {', '.join(missing)}, not installed here: "
            f"pip install 'keras_dynfilter[{row.extra}]'"
        )
    return row, opset if opset is not None or not row.opsets else row.opsets[-1]


def choose_precision(row, precision, representative_data=None):
    """Returns the precision to write the format `row` in, None if it has none; a wrong choice is a ValueError."""
    if precision is None and row.precisions:
        precision = row.precisions[0]
    if precision is not None and precision not in row.precisions:
        which = f"one of {_listed(row.precisions)}" if row.precisions else f"None: {row.name} keeps the model's dtypes"
        near = hint(precision, row.precisions)
        raise ValueError(f"Expected `precision` to be {which}. Received: precision={precision!r}.{near}")
    if (precision == "int8") != (representative_data is not None):
        expected = "inputs for precision 'int8', whose ranges are taken from them, and for no other precision"
        received = f"precision={precision!r} and {'no' if representative_data is None else 'some'} data"
        raise ValueError(f"Expected `representative_data`, {expected}. Received: {received}")
    return precision


def table():
    """The capabilities as a Markdown table."""
    header = ("format", "written as", "ops", "precision", "opsets", "extra", "validated on")
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join(['---'] * len(header))} |"]
    for row in FORMATS.values():
        opsets = f"{row.opsets[0]} to {row.opsets[-1]}" if row.opsets else "-"
        precisions = ", ".join(row.precisions) or "of the model"
        cells = (f"`{row.name}`", row.kind, ", ".join(row.ops), precisions, opsets, row.extra or "-", row.runtime)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _listed(values):
    return ", ".join(repr(value) for value in values)
