# SPDX-License-Identifier: Apache-2.0
"""Checks what the package needs before the rest of it is imported: TensorFlow, Keras, their versions, the backend."""

import importlib
import importlib.metadata
import re
import types
import warnings

# The ranges of minor versions that the tests have run on; docs/start/compatibility.md has the results.
TESTED = {"TensorFlow": [("2.15", "2.22")], "Keras": [("2.15", "2.15"), ("3.3", "3.16")]}


def import_module(name: str, package: str) -> types.ModuleType:
    """Imports TensorFlow or Keras. Raises an ImportError of one line if the package is missing or incomplete."""
    state = "installed incompletely"
    try:
        module = importlib.import_module(name)
        # Removing one of two TensorFlow packages leaves a folder without a module, which can be imported.
        if hasattr(module, "__version__"):
            return module
    except ModuleNotFoundError as error:
        if error.name != name:  # the package is installed, and it misses another one
            raise
        state = "not installed"
    raise ImportError(
        f"keras_dynfilter needs {package} {TESTED[package][0][0]} or newer, which is {state}: "
        "pip install 'keras_dynfilter[tensorflow]', or install another build of TensorFlow, such as tensorflow-cpu"
    )


def check_version(package: str, version: str) -> None:
    """Raises an ImportError if a version is too old, and warns if the package has not been tested with it."""
    tested = TESTED[package]
    if minor(version) < minor(tested[0][0]):
        raise ImportError(f"Expected {package} {tested[0][0]} or newer. Received: {package} {version}")
    if not any(minor(first) <= minor(version) <= minor(last) for first, last in tested):
        ranges = " and ".join(first if first == last else f"{first} to {last}" for first, last in tested)
        warnings.warn(
            f"keras_dynfilter has been tested with {package} {ranges}, and not with {package} {version}, "
            "which is installed here",
            RuntimeWarning,
            stacklevel=2,
        )


def minor(version: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def install_command(extra: str) -> str:
    """Returns the command that installs an extra and keeps the TensorFlow of this environment.

    Without the name and the version of TensorFlow in the same command, pip may install packages that do not fit it.
    """
    packages = set(importlib.metadata.packages_distributions().get("tensorflow", []))
    kept = [f" '{package}=={importlib.metadata.version(package)}'" for package in sorted(packages)]
    return f"pip install 'keras_dynfilter[{extra}]'{''.join(kept)}"


def check_backend() -> None:
    """Raises an ImportError if Keras does not compute with TensorFlow, as the layers and ops need it."""
    backend = import_module("keras", "Keras").backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            "Expected Keras to use the TensorFlow backend, on which keras_dynfilter runs. Received: "
            f"keras.backend.backend()={backend!r}. Set the environment variable KERAS_BACKEND=tensorflow before Keras "
            "is imported"
        )


# TensorFlow comes first, because Keras cannot be imported without it.
for _name, _package in (("tensorflow", "TensorFlow"), ("keras", "Keras")):
    check_version(_package, import_module(_name, _package).__version__)
check_backend()
