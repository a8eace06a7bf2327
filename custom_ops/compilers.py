# SPDX-License-Identifier: Apache-2.0
"""Describes the compilers, and forms their commands."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
from collections.abc import Sequence

from . import machines, sources, toolchain, units
from .errors import BuildError


@dataclasses.dataclass(frozen=True)
class Compilers:
    """The command of the C++ compiler and, if there is one, the path of the CUDA compiler."""

    cxx: tuple[str, ...]
    nvcc: str | None

    @classmethod
    def installed(cls) -> "Compilers":
        """Finds the compilers. Runs none.

        Raises:
            BuildError: There is no C++ compiler.
        """
        cxx = toolchain.find_cxx()
        if cxx is None and os.environ.get("CXX"):
            raise BuildError(
                "no C++ compiler was found: Expected CXX to be the command of a C++ compiler. Received: "
                f"CXX={os.environ['CXX']}"
            )
        if cxx is None:
            raise BuildError("no C++ compiler was found (g++, or the one that the variable CXX names)")
        return cls(cxx, toolchain.find_nvcc())

    def object_key(self, unit: units.Unit) -> str:
        """Returns the SHA-256 of everything that determines the object file of a unit."""
        return sources.digest([unit.key, unit.headers, self._nvcc_version if unit.is_cuda else self._cxx_version(unit)])

    def _cxx_version(self, unit):
        native = self._meaning_of_native if machines.target().native_flag in unit.flags else ""
        return self._version_of_cxx + native

    @functools.cached_property
    def _version_of_cxx(self):
        return toolchain.output([*self.cxx, "--version"])

    @functools.cached_property
    def _meaning_of_native(self):
        return toolchain.output([*self.cxx, machines.target().native_flag, "-Q", "--help=target"], may_fail=True)

    @functools.cached_property
    def _nvcc_version(self):
        return toolchain.output([str(self.nvcc), "--version"]) + self._version_of_cxx  # nvcc calls the C++ compiler

    def compile_command(self, unit: units.Unit, output: pathlib.Path) -> list[str]:
        """Returns the command that compiles a unit."""
        return [*self._read_command(unit), "-c", str(unit.source), "-o", str(output)]

    def _read_command(self, unit):
        system = [part for folder in unit.includes for part in ("-isystem", folder)]
        compiler = [str(self.nvcc)] if unit.is_cuda else self.cxx
        return [*compiler, *unit.flags, *system, f"-I{sources.FOLDER}"]

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
        shared = ["-shared"]
        if library.machine.system == "darwin":
            # The names of functions that no given library has are looked up when the library is loaded, as on Linux.
            shared = ["-dynamiclib", "-undefined", "dynamic_lookup", f"-Wl,-install_name,@rpath/{library.file_name}"]
        command = [*self.cxx, *shared, *map(str, objects)]
        if library.has_cuda:
            # The CUDA runtime is linked before the libraries of TensorFlow, which contain stubs with the same names.
            plan = toolchain.output([str(self.nvcc), "--dryrun", "-x", "cu", "/dev/null"])
            top = re.search(r"TOP=(.*)", plan)
            if top is None:
                raise BuildError(f"{self.nvcc} --dryrun does not print its folder, TOP")
            folder = pathlib.Path(top[1].strip()) / "lib64"
            command += [f"-L{folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        return [*command, *map(str, library.libraries), "-o", str(output)]
