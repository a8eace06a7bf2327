# SPDX-License-Identifier: Apache-2.0
"""Finds the compilers, and asks them about themselves."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from .errors import CompilerStopped


def find_cxx() -> tuple[str, ...] | None:
    """Returns the command of the C++ compiler, or None.

    The variable CXX names the compiler, possibly with arguments: `CXX="aarch64-linux-gnu-g++ -static-libstdc++"`.
    """
    chosen = os.environ.get("CXX")
    if not chosen:
        path = shutil.which("g++") or shutil.which("c++")
        return (path,) if path else None
    # Another compiler in its place could build for another machine.
    whole = shutil.which(chosen)
    words = (whole,) if whole else tuple(shlex.split(chosen))
    path = shutil.which(words[0]) if words else None
    return (path, *words[1:]) if path else None


def cuda_is_off() -> bool:
    """Returns whether the variable KERAS_DYNFILTER_CUDA excludes CUDA kernels."""
    return os.environ.get("KERAS_DYNFILTER_CUDA", "1") == "0"


def find_nvcc() -> str | None:
    """Returns the path of the CUDA compiler, or None. `CUDA_HOME` takes precedence over the search path."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


def output(command: Sequence[str], may_fail: bool = False) -> str:
    """Returns what a command prints about itself.

    Args:
        command: The program and its arguments.
        may_fail: Whether to ignore the exit status.

    Raises:
        CompilerStopped: The command could not run, or failed.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise CompilerStopped(f"{command[0]} could not run: {error}") from error
    # Part of a description would make wrong keys.
    if done.returncode < 0 or (done.returncode > 0 and not may_fail):
        raise CompilerStopped(f"`{' '.join(command)}` failed with status {done.returncode}: {done.stdout[-500:]}")
    return done.stdout
