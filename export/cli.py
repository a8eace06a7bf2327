# SPDX-License-Identifier: Apache-2.0
"""Implements the command `keras-dynfilter-export MODEL.keras --format onnx --out model.onnx`."""

import argparse
import contextlib
import math
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.export import formats, model_loading, networks
from keras_dynfilter.export.api import checked_path, export
from keras_dynfilter.export.report import ExportError, Report, ValidationError, first_line
from keras_dynfilter.export.validation.settings import Validation
from keras_dynfilter.untrusted import npz

PASSED, FAILED, USAGE = 0, 1, 2
# Argument of `export` -> the option that sets it.
OPTIONS = {
    "format": "--format",
    "input_size": "--input-size",
    "memory_limit": "--memory-limit",
    "ops": "--ops",
    "opset": "--opset",
    "path": "--out",
    "precision": "--precision",
    "representative_data": "--representative-data",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0 exported, 1 export or validation failed, 2 wrong usage."""
    return run(parse(arguments))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with a message if an argument is wrong."""
    parser = _parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        options = set(re.findall(r"--[a-z-]+", parser.format_help()))
        parser.error(f"unknown argument {unknown[0]}.{formats.hint(unknown[0], options)}")
    _check_model_arguments(parser, args)
    return args


def run(args: argparse.Namespace) -> int:
    """Exports as the parsed arguments say. Returns the exit status."""
    try:
        row, _ = formats.choose(args.format, args.ops, args.opset)
        formats.choose_precision(row, args.precision, args.representative_data)
        out = checked_path(args.out or _default_out(args, row), row)
        _check_outputs(args, out)
        arrays = _read_arrays(args.representative_data)
        model = _load(args)
        report = _export(model, out, args, _batches(arrays, model))
        _store(report, args.report)
        _print(str(report))
    except ValidationError as error:
        with contextlib.suppress(ExportError):
            _store(error.report, args.report)
        return _fail(error, FAILED)
    except (ExportError, ImportError) as error:
        return _fail(error, FAILED)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        return _fail(ExportError(f"Memory ran out: {first_line(error)}"), FAILED)
    except (ValueError, OSError) as error:
        return _fail(error, USAGE)
    return PASSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-dynfilter-export",
        usage="%(prog)s MODEL [options]\n       %(prog)s --model NAME --weights FILE [--set NAME=VALUE ...] [options]",
        description="Exports a saved Keras model to a file that runs without keras_dynfilter, and validates that file.",
        epilog=f"formats:\n\n{formats.table()}\n\nops:\n{_described(formats.OPS)}\n\n"
        f"precisions of litert:\n{_described(formats.PRECISIONS)}\n\n"
        "exit status: 0 exported, 1 the export or its validation failed, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_argument_group("what to export")
    source.add_argument(
        "model", type=pathlib.Path, nargs="?", metavar="MODEL", help="a .keras file, or the folder of a SavedModel"
    )
    source.add_argument(
        "--model", dest="name", metavar="NAME", help="instead of MODEL: a network of keras_dynfilter.models"
    )
    source.add_argument(
        "--weights", type=pathlib.Path, metavar="FILE", help="weights of the network, written by save_weights"
    )
    source.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the network, as in training, such as width=0.25; can be repeated",
    )
    source.add_argument(
        "--input-size", type=_size, metavar="HxW", help="fix height and width if the model leaves them open"
    )
    source.add_argument(
        "--unsafe", action="store_true", help="trust MODEL: allow it to run code (Lambda layers) and to use files"
    )
    target = parser.add_argument_group("what to write")
    target.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="PATH",
        help="file or folder to write (default: next to the model, under its name)",
    )
    target.add_argument("--format", default="saved_model", help=f"{', '.join(formats.FORMATS)} (default: %(default)s)")
    target.add_argument("--ops", default="portable", help=f"{' or '.join(formats.OPS)} (default: %(default)s)")
    target.add_argument("--opset", type=int, metavar="N", help="ONNX opset (default: the newest)")
    target.add_argument(
        "--precision", help=f"precision of a litert file: {', '.join(formats.PRECISIONS)} (default: float32)"
    )
    target.add_argument(
        "--representative-data",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="for --precision int8: typical inputs, one array for each input name, samples first",
    )
    target.add_argument("--report", type=pathlib.Path, metavar="PATH", help="also write the report, as JSON")
    target.add_argument(
        "--memory-limit",
        type=_gigabytes,
        metavar="GB",
        help="largest number of gigabytes that the validation may need (default: half of the available memory)",
    )
    target.add_argument(
        "--no-validate",
        dest="validate",
        action="store_false",
        help="skip validation (the file may not load, or may differ from the model)",
    )
    return parser


def _described(values: dict[str, str]) -> str:
    return "\n".join(f"  {name:<13} {meaning}" for name, meaning in values.items())


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"expected HxW, such as 64x96. Received: {text!r}")
    return size


def _gigabytes(text: str) -> float:
    try:
        size = 1e9 * float(text)
    except ValueError:
        size = 0
    if not 0 < size < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number. Received: {text!r}")
    return size


def _check_outputs(args: argparse.Namespace, out: pathlib.Path) -> None:
    """Raises a ValueError if the report or the export cannot be written, or would replace a file that is read."""
    sources = [path for path in (args.model, args.weights, args.representative_data) if path is not None]
    for option, path in (("--out", out), ("--report", args.report)):
        if path is not None and any(_is_same_file(path, source) for source in sources):
            raise ValueError(f"Expected {option} to be another file than the inputs of the export. Received: {path}")
    if args.report is None:
        return
    folder = args.report.absolute().parent
    if args.report.is_dir() or not folder.is_dir():
        raise ValueError(f"Expected --report to be a file in an existing folder. Received: {args.report}")
    if not os.access(args.report if args.report.exists() else folder, os.W_OK):
        raise ValueError(f"Expected --report to be a file that can be written. Received: {args.report}")
    if _is_same_file(args.report, out) or out.absolute() in args.report.absolute().parents:
        raise ValueError(f"Expected --report to be outside of --out. Received: {args.report}")


def _is_same_file(one: pathlib.Path, other: pathlib.Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other) or (one.exists() and other.exists() and one.samefile(other))


def _read_arrays(path: pathlib.Path | None) -> dict[str, np.ndarray] | None:
    """Reads the arrays of an .npz file by name and checks that they have equally many samples. None stays None."""
    if path is None:
        return None
    try:
        arrays = npz.read(path)
    except ValueError as error:
        expected = "Expected --representative-data to be an .npz file of arrays"
        raise ValueError(f"{expected}. Received: {path}: {error}") from error
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) != 1 or lengths <= {(), (0,)}:  # the length of a scalar is ()
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        expected = "Expected --representative-data to hold arrays with equally many samples, at least one"
        raise ValueError(f"{expected}. Received: {path} with {shapes}")
    return arrays


def _batches(arrays: dict[str, np.ndarray] | None, model: keras.Model) -> list[dict[str, np.ndarray]] | None:
    """Splits arrays into batches of the model's fixed batch size, otherwise of one sample. None stays None.

    If too few samples are left for the last batch, it also takes samples of the batch before.
    """
    if arrays is None:
        return None
    fixed_sizes = {value.shape[0] for value in getattr(model, "inputs", None) or ()} - {None}
    size, count = max(fixed_sizes, default=1), len(next(iter(arrays.values())))
    if len(fixed_sizes) > 1 or count < size:
        sizes = " and ".join(map(str, sorted(fixed_sizes)))
        expected = f"Expected --representative-data to fill a batch of the model, of {sizes} samples"
        raise ValueError(f"{expected}. Received: {count} samples")
    starts = [min(start, count - size) for start in range(0, count, size)]
    return [{name: array[start : start + size] for name, array in arrays.items()} for start in starts]


def _load(args: argparse.Namespace) -> keras.Model:
    if args.name is not None:
        return networks.load_network(args.name, args.weights, args.set)
    return model_loading.load_model(args.model, args.unsafe)


def _export(model: keras.Model, out: pathlib.Path, args: argparse.Namespace, representative_data: Any) -> Report:
    try:
        return export(
            model,
            out,
            args.format,
            args.ops,
            Validation(memory_limit=args.memory_limit) if args.validate else False,
            opset=args.opset,
            precision=args.precision,
            representative_data=representative_data,
            input_size=args.input_size,
            verbose=False,
        )
    except OSError as error:  # such as a full disk: not a wrong argument
        raise ExportError(f"{out} cannot be written: {error}") from error


def _check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with a message unless the arguments name exactly one model."""
    if args.model is None and args.name is None:
        parser.error("expected MODEL, a .keras file or a SavedModel folder, or --model NAME")
    if args.model is not None and args.name is not None:
        parser.error("expected MODEL or --model NAME, not both")
    if args.name is None and (args.weights or args.set):
        parser.error("--weights and --set need --model, which names the network")
    if args.name is not None and args.weights is None:
        parser.error("expected --weights FILE, written by save_weights, with --model")
    if args.name is not None and args.unsafe:
        parser.error("--unsafe is for MODEL: weights run no code")


def _default_out(args: argparse.Namespace, row: formats.Format) -> pathlib.Path:
    """Returns the default of --out: next to the model, under its name. A SavedModel does not replace itself."""
    source = args.model or args.weights
    if source.name in ("", ".."):
        source = source.resolve()
    out = source.with_name(re.sub(r"(\.weights)?\.h5$|\.keras$", "", source.name) + row.suffix)
    return out if out != source else out.with_name(f"{out.name}_exported")


def _store(report: Report, path: pathlib.Path | None) -> None:
    if path is not None:
        try:
            report.to_json(path)
        except OSError as error:
            outcome = "was exported" if report.passed is not False else "was not exported"
            raise ExportError(f"{report.path} {outcome}, but --report {path} cannot be written: {error}") from error


def _print(text: str) -> None:
    """Prints a text. An output that is closed or full does not change the outcome of the export."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _fail(error: Exception, status: int) -> int:
    """Prints the error, with the arguments of `export` replaced by options. Returns the status."""
    text = re.sub(r"`(\w+)`", lambda match: OPTIONS.get(match[1], match[0]), str(error))
    with contextlib.suppress(OSError):
        print(f"error: {text}", file=sys.stderr, flush=True)
    return status
