# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m keras_dynfilter.export MODEL.keras --format onnx --out model.onnx`."""

import argparse
import pathlib
import re
import sys
import zipfile

import numpy as np

from keras_dynfilter.export import formats
from keras_dynfilter.export.api import checked_path, export
from keras_dynfilter.export.report import ExportError, ValidationError

PASSED, FAILED, USAGE = 0, 1, 2


def main(arguments=None):
    """Returns the exit status: 0 exported, 1 the export or its validation failed, 2 wrong usage."""
    parser = _parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        options = re.findall(r"--[a-z-]+", parser.format_usage())
        parser.error(f"unknown argument {unknown[0]}.{formats.hint(unknown[0], options)}")
    _check(parser, args)
    try:
        row, _ = formats.choose(args.format, args.ops, args.opset)
        formats.choose_precision(row, args.precision, args.representative_data)
        out = checked_path(args.out or _beside(args, row), row)
        if args.report is not None and (args.report.is_dir() or not args.report.absolute().parent.is_dir()):
            raise ValueError(f"Expected --report to be a file in an existing folder. Received: {args.report}")
        options = dict(opset=args.opset, precision=args.precision, input_size=args.input_size)
        arrays = _arrays(args.representative_data)
        model = _load(args)
        options["representative_data"] = _samples(arrays, model)
        report = _export(model, out, args, options)
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
    parser.add_argument(
        "model", type=pathlib.Path, nargs="?", metavar="MODEL", help="a .keras file, or the folder of a SavedModel"
    )
    parser.add_argument("--model", dest="name", metavar="NAME", help="a network of keras_dynfilter.models, and ...")
    parser.add_argument("--weights", type=pathlib.Path, metavar="FILE", help="... its weights, from save_weights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument that the network is made with, such as width=0.25; as often as needed",
    )
    parser.add_argument("--format", default="saved_model", help=f"{', '.join(formats.FORMATS)} (default: %(default)s)")
    modes = "; ".join(f"{name}: {meaning}" for name, meaning in formats.OPS.items())
    parser.add_argument("--ops", default="portable", help=f"{modes} (default: %(default)s)")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX opset (default: the newest in the table)")
    precisions = "; ".join(f"{name}: {meaning}" for name, meaning in formats.PRECISIONS.items())
    parser.add_argument("--precision", help=f"of litert; {precisions} (default: float32)")
    parser.add_argument(
        "--representative-data",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="for int8: typical inputs, an array for each by its name, samples first",
    )
    parser.add_argument("--input-size", type=_size, metavar="HxW", help="fix height and width where they are open")
    parser.add_argument("--out", type=pathlib.Path, metavar="PATH", help="what to write (default: beside the model)")
    parser.add_argument("--report", type=pathlib.Path, metavar="PATH", help="write the report as JSON")
    parser.add_argument(
        "--no-validate",
        dest="validate",
        action="store_false",
        help="skip the fresh process: nothing is then known of whether the file loads, or what it computes",
    )
    parser.add_argument("--unsafe", action="store_true", help="let MODEL run code of its own: Lambda layers, files")
    return parser


def _size(text):
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"expected HxW, such as 64x96, and not {text!r}")
    return size


def _arrays(path):
    """The arrays of an .npz file by name, all of one length; None for None."""
    if path is None:
        return None
    try:
        with np.load(path) as archive:
            arrays = dict(archive)
    except (AttributeError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:  # a single array, no array
        raise ValueError(f"Expected --representative-data to be an .npz file of arrays. Received: {path}") from error
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) != 1 or lengths <= {(), (0,)}:  # a scalar has no length, and no samples are none
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        expected = "Expected --representative-data to hold arrays with as many samples each, at least one"
        raise ValueError(f"{expected}. Received: {path} with {shapes}")
    return arrays


def _samples(arrays, model):
    """The arrays as a list of batches by name: of the size that the model fixes, otherwise of one; None for None.

    The last batch may hold some samples of the one before.
    """
    if arrays is None:
        return None
    fixed = {value.shape[0] for value in getattr(model, "inputs", None) or ()} - {None}
    size, count = max(fixed, default=1), len(next(iter(arrays.values())))
    if len(fixed) > 1 or count < size:
        sizes = " and ".join(map(str, sorted(fixed)))
        expected = f"Expected --representative-data to fill a batch of the model, of {sizes} samples"
        raise ValueError(f"{expected}. Received: {count} samples")
    starts = [min(start, count - size) for start in range(0, count, size)]
    return [{name: array[start : start + size] for name, array in arrays.items()} for start in starts]


def _load(args):
    """The model that the arguments name."""
    from keras_dynfilter.export import model_loading

    if args.name is not None:
        return model_loading.network(args.name, args.weights, args.set)
    return model_loading.model_file(args.model, args.unsafe)


def _export(model, out, args, options):
    try:
        return export(model, out, args.format, args.ops, args.validate, **options)
    except OSError as error:  # a full disk, say: nothing that other arguments would mend
        raise ExportError(f"{out} cannot be written: {error}") from error


def _check(parser, args):
    """Leaves where the arguments do not name one model."""
    if (args.model is None) == (args.name is None):
        parser.error("expected MODEL, a .keras file or a SavedModel folder, or --model NAME, and not both")
    if args.name is None and (args.weights or args.set):
        parser.error("--weights and --set are for a network that --model names")
    if args.name is not None and args.weights is None:
        parser.error("expected --weights FILE, what save_weights wrote, with --model")
    if args.name is not None and args.unsafe:
        parser.error("--unsafe is for MODEL: a network that --model names and its weights run no code of a file")


def _beside(args, row):
    """The default of --out: beside what is exported, under its name. A SavedModel does not replace itself."""
    source = args.model or args.weights
    out = source.with_name(re.sub(r"(\.weights)?\.h5$|\.keras$", "", source.name) + row.suffix)
    return out if out != source else out.with_name(f"{out.name}_exported")


def _store(report, path):
    if path is not None:
        report.to_json(path)


def _fail(error, status):
    print(f"error: {error}", file=sys.stderr)
    return status
