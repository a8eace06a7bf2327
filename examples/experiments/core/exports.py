# SPDX-License-Identifier: Apache-2.0
"""Exports the trained networks of a run in the formats of `--export`."""

import argparse
import pathlib
from collections.abc import Iterable
from typing import Any

import keras

from examples.experiments.core import files, options
from examples.experiments.core.checkpoint import SetupError
from keras_dynfilter import export
from keras_dynfilter.export import api, formats


def export_paths(args: argparse.Namespace, name: str) -> dict[str, pathlib.Path]:
    """Returns the paths of the exports of a network, by format."""
    return {format_: args.out / (name + options.EXPORTS[format_]) for format_ in args.export}


def check_export_paths(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Checks before the training that the exports can be written.

    Args:
        args: The options. Scripts without `--export` have no `export`.
        names: Names of the networks.

    Raises:
        SetupError: A path cannot be written, or something else is in its place.
    """
    if not getattr(args, "export", None):
        return
    for name in names:
        for format_, path in export_paths(args, name).items():
            try:
                api.checked_path(path, formats.FORMATS[format_])
            except ValueError as error:
                raise SetupError(f"--export {format_}: {error}") from error


def write_exports(args: argparse.Namespace, name: str, network: keras.Model) -> dict[str, Any]:
    """Exports a network in the formats of `--export`, which prints the reports. Returns the reports by format.

    Raises:
        export.ExportError: The network cannot be exported.
        files.WriteError: A file cannot be written.
    """
    reports = {}
    for format_, path in export_paths(args, name).items():
        with files.writing(path):
            reports[format_] = export.export(network, str(path), format=format_).to_dict()
    return reports


def print_exports(args: argparse.Namespace, name: str) -> None:
    """Prints the paths of the exports of a network."""
    for format_, path in export_paths(args, name).items():
        print(f"Export   {path} ({format_}, validated)")
