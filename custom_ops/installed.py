# SPDX-License-Identifier: Apache-2.0
"""Finds the libraries inside the installed package, and puts them there when the package is built.

A library in the package fits every TensorFlow that has the headers with which the library was compiled: they define the
layout of all objects that the two exchange. Releases that differ in the last number usually have them. TensorFlow
refuses a library that needs a function which it does not have.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator

from . import cache, compilers, machines, sources, units
from .errors import BuildError
from .libraries import Libraries

FOLDER = pathlib.Path(__file__).resolve().parent / "lib"  # with a folder for each minor version of TensorFlow
RECORD = "tensorflow.json"
# These headers define numbers only, one of which is the last number of the version.
VERSION_HEADERS = {"tensorflow/core/public/version.h", "tensorflow/core/public/release_version.h"}


def find(tensorflow: units.TensorFlow, folder: pathlib.Path = FOLDER) -> tuple[Libraries | None, tuple[str, ...]]:
    """Finds the libraries that fit a TensorFlow.

    Args:
        tensorflow: The installed TensorFlow.
        folder: The folder of the libraries in the package. It may not exist.

    Returns:
        The libraries, or None, and reasons why libraries in the folder are not used.
    """
    inside = folder / tensorflow.minor
    if not inside.is_dir():
        others = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{RECORD}")))
        text = f"the compiled ops in the package are for TensorFlow {others}, and {tensorflow.version} is installed"
        return None, (text,) if others else ()
    try:
        record = json.loads((inside / RECORD).read_text())
        reason, cuda = _reason_against_headers(record, tensorflow), record["cuda"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, (f"a library in the package is damaged: {inside / RECORD}: {error!r}",)
    if reason:
        return None, (reason,)
    intact, reasons = _intact(inside, ("ops", "xla"))
    if "ops" not in intact:
        return None, reasons
    notes = () if "xla" in intact else (f"no XLA kernels: {_reason_without_xla(tensorflow)}",)
    return Libraries(intact["ops"], intact.get("xla"), (*reasons, *notes), cuda), ()


def find_ort(folder: pathlib.Path = FOLDER) -> pathlib.Path | None:
    """Returns the path of the library for ONNX Runtime in the package, or None."""
    return _intact(folder, ("ort",))[0].get("ort")


def _intact(folder, names):
    """Returns the paths of the intact libraries in a folder by their names, and reasons against the others.

    A library of other sources can be left from an earlier version of the package if it was copied into the folder.
    """
    intact: dict[str, pathlib.Path] = {}
    reasons = []
    for name in names:
        for path in sorted(folder.glob(f"{units.library_prefix(name)}-*{machines.this().suffix}")):
            reason = cache.reason_against_content(path, units.SYMBOLS[name])
            if not path.name.startswith(f"{units.library_prefix(name)}-{sources.ops_version()}-"):
                reasons.append(f"a library in the package is of another version of the package: {path}")
            elif reason:
                reasons.append(f"a library in the package is damaged: {reason}")
            else:
                intact[name] = path
    return intact, tuple(reasons)


def _reason_without_xla(tensorflow):
    if tensorflow.has_xla:
        return "the package has no intact XLA library of this version"
    return f"they need TensorFlow {'.'.join(map(str, units.XLA_FROM))} or newer"


def _reason_against_headers(record, tensorflow):
    built, here = record["tensorflow"], tensorflow.version
    if record["flags"] != list(tensorflow.flags):
        return f"the compiled ops in the package are for a TensorFlow {built} with other compiler flags"
    try:
        same = record["sha256"] == _digest(pathlib.Path(tensorflow.include), record["headers"])
    except OSError:
        same = False
    if not same:
        return (
            f"the compiled ops in the package are for TensorFlow {built}, and the headers of {here} differ from its own"
        )
    return ""


def _digest(include, names):
    """Returns the SHA-256 of headers and their names."""
    total = hashlib.sha256()
    for name in names:
        total.update(hashlib.sha256(name.encode()).digest())
        total.update(hashlib.sha256((include / name).read_bytes()).digest())
    return total.hexdigest()


def write(folder: pathlib.Path, tensorflow: units.TensorFlow, libraries: Libraries) -> Libraries:
    """Puts the libraries for a TensorFlow into the folder of the libraries in the package. Returns them there.

    Raises:
        BuildError: The compiler does not name the headers of TensorFlow that it includes.
    """
    inside = folder / tensorflow.minor
    if (inside / RECORD).is_file():  # of an earlier build
        shutil.rmtree(inside)
    inside.mkdir(parents=True)
    plans = [units.ops_library(tensorflow, libraries.cuda)]
    plans += [units.xla_library(tensorflow, libraries.cuda)] if libraries.xla else []
    headers = sorted(set(_headers(tensorflow, plans)) - VERSION_HEADERS)
    if not headers:
        raise BuildError(f"the compiler does not name the headers in {tensorflow.include} that it includes")
    record = {
        "tensorflow": tensorflow.version,
        "flags": tensorflow.flags,
        "cuda": libraries.cuda,
        "sha256": _digest(pathlib.Path(tensorflow.include), headers),
        "headers": headers,
    }
    (inside / RECORD).write_text(json.dumps(record, indent=0) + "\n")
    xla = _copy(libraries.xla, inside) if libraries.xla else None
    return dataclasses.replace(libraries, ops=_copy(libraries.ops, inside), xla=xla)


def write_ort(folder: pathlib.Path, library: pathlib.Path) -> pathlib.Path:
    """Puts the library for ONNX Runtime into the folder of the libraries in the package. Returns its path there."""
    folder.mkdir(parents=True, exist_ok=True)
    return _copy(library, folder)


def _headers(tensorflow: units.TensorFlow, plans: Iterable[units.LibraryPlan]) -> Iterator[str]:
    """Yields the headers of TensorFlow that the sources of libraries include, relative to their folder."""
    compiler, include = compilers.Compilers.installed(), pathlib.Path(tensorflow.include)
    for unit in {unit for plan in plans for unit in plan.units if tensorflow.include in unit.includes}:
        for path in compiler.included_files(unit):
            if path.is_relative_to(include):
                yield path.relative_to(include).as_posix()


def _copy(library, folder):
    shutil.copy2(cache.checksum_file(library), folder)
    return pathlib.Path(shutil.copy2(library, folder))
