# SPDX-License-Identifier: Apache-2.0
"""Exports of all networks of an experiment: `{name}_saved_model` and `{name}.onnx` in the folder of the run."""

import harness
from keras_dynfilter.export import formats

KINDS = ("saved_model", "onnx")


def check_packages(kinds):
    """Whether the formats can be written here, to be asked before a training.

    Raises:
        ImportError: A package that one of them needs is missing.
    """
    for kind in kinds:
        formats.choose(kind, "portable", None)


def files(name, kinds=KINDS):
    """Name of the file or folder of the network `name`, by format."""
    return {kind: name + (formats.FORMATS[kind].suffix or f"_{kind}") for kind in kinds}


def write(run, networks):
    """Exports every network in the formats of `--export`; returns reports by name and format."""
    return {name: harness.write_exports(run, network, files(name)) for name, network in networks.items()}


def print_paths(args, names):
    """Prints where the exports of the networks `names` are."""
    for name in names:
        for kind, file in files(name, args.export).items():
            print(f"Export   {args.out / file} ({kind}, validated)")
