# SPDX-License-Identifier: Apache-2.0
"""Finds the compilers of this machine, describes them, and forms their commands."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Sequence

from . import sources, units
from .errors import BuildError, CompilerStopped


def find_nvcc() -> str | None:
    """Returns the path of the CUDA compiler, or None. `CUDA_HOME` takes precedence over the search path."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


@dataclasses.dataclass(frozen=True)
class Compilers:
    """The paths of the C++ compiler and, if there is one, of the CUDA compiler."""

    cxx: str
    nvcc: str | None

    @classmethod
    def installed(cls) -> "Compilers":
        """Finds the compilers. Runs none.

        Raises:
            BuildError: There is no C++ compiler.
        """
        cxx = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
        if cxx is None:
            raise BuildError("no C++ compiler was found (g++, or the one that the variable CXX names)")
        return cls(cxx, find_nvcc())

    def object_key(self, unit: units.Unit) -> str:
        """Returns the SHA-256 of everything that determines the object file of a unit."""
        return sources.digest([unit.key, unit.headers, self._nvcc_version if unit.is_cuda else self._cxx_version(unit)])

    def _cxx_version(self, unit):
        native = self._meaning_of_native if "-march=native" in unit.flags else ""
        return self._version_of_cxx + native

    @functools.cached_property
    def _version_of_cxx(self):
        return _output([self.cxx, "--version"])

    @functools.cached_property
    def _meaning_of_native(self):
        return _output([self.cxx, "-march=native", "-Q", "--help=target"], may_fail=True)

    @functools.cached_property
    def _nvcc_version(self):
        return _output([self.nvcc, "--version"]) + self._version_of_cxx  # nvcc calls the C++ compiler

    def compile_command(self, unit: units.Unit, output: pathlib.Path) -> list[str]:
        """Returns the command that compiles a unit."""
        return [*self._read_command(unit), "-c", str(unit.source), "-o", str(output)]

    def _read_command(self, unit):
        system = [part for folder in unit.includes for part in ("-isystem", folder)]
        return [str(self.nvcc if unit.is_cuda else self.cxx), *unit.flags, *system, f"-I{sources.FOLDER}"]

    def included_files(self, unit: units.Unit) -> list[pathlib.Path]:
        """Returns the files that a unit includes, also indirectly. Runs the preprocessor.

        Raises:
            BuildError: The preprocessor failed.
        """
        command = [*self._read_command(unit), "-M", str(unit.source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BuildError(f"{command[0]} could not list the files that {unit.source} includes: {error}") from error
        # A rule for make: "object: source header header", with "\\" before a line break or a space.
        names = re.split(r"(?<!\\)\s+", done.stdout.replace("\\\n", " ").strip())
        return [pathlib.Path(os.path.normpath(name.replace("\\ ", " "))) for name in names[1:]]

    def link_command(
        self, library: units.LibraryPlan, objects: Sequence[pathlib.Path], output: pathlib.Path
    ) -> list[str]:
        """Returns the command that links a library."""
        command = [self.cxx, "-shared", *map(str, objects)]
        if library.has_cuda:
            # The CUDA runtime is linked before the libraries of TensorFlow, which contain stubs with the same names.
            plan = _output([self.nvcc, "--dryrun", "-x", "cu", "/dev/null"])
            top = re.search(r"TOP=(.*)", plan)
            if top is None:
                raise BuildError(f"{self.nvcc} --dryrun does not print its folder, TOP")
            folder = pathlib.Path(top[1].strip()) / "lib64"
            command += [f"-L{folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        return [*command, *library.link, "-o", str(output)]


def _output(command, may_fail=False):
    """Returns what a command prints about itself."""
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
