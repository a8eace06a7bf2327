# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m keras_dynfilter.export MODEL.keras --format onnx --out model.onnx`."""

import argparse
import pathlib
import re
import sys
import zipfile
import zlib

from keras_dynfilter.export import formats
from keras_dynfilter.export._export import checked_path, export
from keras_dynfilter.export.report import ExportError, ValidationError

PASSED, FAILED, USAGE = 0, 1, 2


def main(arguments=None):
    """Returns the exit status: 0 exported, 1 the export or its validation failed, 2 wrong usage."""
    parser = _parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        options = re.findall(r"--[a-z-]+", parser.format_usage())
        parser.error(f"unknown argument {unknown[0]}.{formats.hint(unknown[0], options)}")
    try:
        row, _ = formats.choose(args.format, args.ops, args.opset)
        out = checked_path(args.out or args.model.with_suffix(row.suffix), row)
        if args.report is not None and not args.report.absolute().parent.is_dir():
            raise ValueError(f"Expected --report to lie in an existing folder. Received: {args.report}")
        model = _load(args.model, args.unsafe)
        report = export(model, out, args.format, args.ops, args.validate, opset=args.opset, input_size=args.input_size)
    except ValidationError as error:
        _store(error.report, args.report)
        return _fail(error, FAILED)
    except (ExportError, ImportError) as error:
        return _fail(error, FAILED)
    except (ValueError, OSError) as error:
        return _fail(error, USAGE)
    _store(report, args.report)
    return PASSED


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_dynfilter.export",
        description="Exports a saved Keras model, and proves the file in a fresh process.",
        epilog=f"{formats.table()}\n\nexit status: 0 exported, 1 export or validation failed, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL.keras", help="the model, saved with model.save")
    parser.add_argument("--format", default="saved_model", help=f"{', '.join(formats.FORMATS)} (default: %(default)s)")
    modes = "; ".join(f"{name}: {meaning}" for name, meaning in formats.OPS.items())
    parser.add_argument("--ops", default="portable", help=f"{modes} (default: %(default)s)")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX opset (default: the newest in the table)")
    parser.add_argument("--input-size", type=_size, metavar="HxW", help="fix height and width where they are open")
    parser.add_argument("--out", type=pathlib.Path, metavar="PATH", help="what to write (default: beside MODEL)")
    parser.add_argument("--report", type=pathlib.Path, metavar="PATH", help="write the report as JSON")
    parser.add_argument(
        "--no-validate",
        dest="validate",
        action="store_false",
        help="skip the fresh process: nothing is then known of whether the file loads, or what it computes",
    )
    parser.add_argument("--unsafe", action="store_true", help="let MODEL run code of its own, such as Lambda layers")
    return parser


def _size(text):
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"expected HxW, such as 64x96, and not {text!r}")
    return size


def _load(path, unsafe):
    """Loads the model; its layers must be those of Keras, of keras_dynfilter, or registered."""
    import keras

    if path.suffix != ".keras" or not path.is_file():
        problem = "No such file" if path.suffix == ".keras" else "Expected a .keras file"
        raise ValueError(f"{problem}: {path}")
    if _damaged(path):
        raise ExportError(f"{path} is not a .keras file, or is damaged")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    except (OSError, TypeError, ValueError) as error:
        text = str(error)
        if "safe_mode" in text:
            hint = "It holds code of its own, such as a Lambda layer. --unsafe runs it: only for files you trust"
        else:
            signs = (
                "Could not locate",
                "Unknown layer",
                "parent module",
                "'str' object is not callable",
            )  # last: Keras 2
            unknown = any(sign in text for sign in signs)
            own = "Models with layers of your own are exported from Python, where their module is imported"
            hint = f"It holds a layer that is not known here. {own}" if unknown else "It cannot be loaded"
        raise ExportError(f"{path}: {hint}.\n{text}") from error


def _damaged(path):
    """Whether the archive cannot be read: what Keras says of such files misleads."""
    if not zipfile.is_zipfile(path):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" not in archive.namelist() or archive.testzip() is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return True


def _store(report, path):
    if path is not None:
        report.to_json(path)


def _fail(error, status):
    print(f"error: {error}", file=sys.stderr)
    return status
