# SPDX-License-Identifier: Apache-2.0
"""Describes the machine for which libraries are built: this one, or the one for which a cross compiler compiles.

Linux is tested, on x86-64 and (in an emulator) on aarch64. The rules for macOS follow the manuals of clang and of
TensorFlow, and are not tested.
"""

import dataclasses
import functools
import os
import pathlib
import platform
import re
import sys

from . import toolchain
from .errors import BuildError

# What /proc/cpuinfo calls the instruction sets that a compiler can use in C++ code by itself. It lists many others,
# which depend on the kernel, the hypervisor and the microcode.
_X86_SETS = r"pni|ssse3|sse\w*|avx\w*|fma\w*|f16c|bmi\d|abm|popcnt|movbe|xop|tbm|gfni|cx16|lahf_lm|apx\w*"
_ARM_SETS = (
    r"fp\w*|asimd\w*|atomics|lse\w*|i?lrcpc\w*|uscat|fcma|jscvt|frint|flagm\w*|sha3|i8mm|e?bf16|f8\w*|sve\w*|sme\w*|"
    r"cssc|mops|hbc"
)
_SYNONYMS = {"amd64": "x86_64", "x86_64h": "x86_64", "arm64": "aarch64", "arm64e": "aarch64"}


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine for which libraries are built.

    Attributes:
        processor: `"x86_64"`, `"aarch64"` or another processor.
        system: `"linux"`, `"darwin"` or another operating system.
        abi: What else distinguishes its programs, such as `"musl"`. Empty for glibc, and where there is no choice.
        options: The arguments that the variable CXX gives to the compiler.
        is_cross: Whether it is not the machine that builds.
    """

    processor: str
    system: str
    abi: str = ""
    options: str = ""
    is_cross: bool = False

    @property
    def name(self) -> str:
        """A short name, such as `aarch64-linux`."""
        return "-".join(filter(None, (self.processor, self.system, self.abi)))

    @property
    def description(self) -> str:
        """What the libraries for this machine have in common."""
        return f"{self.name} {self.options}".rstrip()

    @property
    def suffix(self) -> str:
        """The suffix of libraries."""
        return ".dylib" if self.system == "darwin" else ".so"

    @property
    def native_flag(self) -> str:
        """The flag that compiles for the processor of the machine that builds."""
        # On these processors -mcpu selects what -march and -mtune select on x86-64; clang has no -march=native there.
        return "-mcpu=native" if self.processor in ("aarch64", "arm", "ppc64le") else "-march=native"

    def check_supported(self) -> None:
        """Raises a `BuildError` if libraries cannot be built for this machine."""
        if self.system not in ("linux", "darwin"):
            raise BuildError(f"the ops are built on Linux (or macOS, untested) only, not on {self.system}")


def target() -> Machine:
    """Returns the machine for which the compiler builds. The compiler is asked only if the variable CXX names it."""
    cxx = toolchain.find_cxx() if os.environ.get("CXX") else None
    return this() if cxx is None else _target_of(cxx)


@functools.cache
def this() -> Machine:
    """Returns the machine on which this process runs."""
    triple = getattr(sys.implementation, "_multiarch", "")  # `sysconfig` would import a large module to get it
    of_python = _of_triple(triple) if sys.platform.startswith("linux") else None
    if of_python is not None:  # a 32-bit Python may run on a 64-bit kernel
        return of_python
    system = "linux" if sys.platform.startswith("linux") else sys.platform
    return Machine(_processor(platform.machine()), "windows" if system in ("win32", "cygwin") else system)


@functools.cache
def _target_of(cxx):
    try:
        machine = _of_triple(toolchain.output([*cxx, "-dumpmachine"]).strip())
    except BuildError:  # Finished libraries are found with a compiler that does not run. A build reports the error.
        machine = None
    machine = machine or this()
    return dataclasses.replace(machine, options=" ".join(cxx[1:]), is_cross=machine != this())


def _of_triple(triple):
    """Returns the machine of a name such as `aarch64-linux-gnu`, or None."""
    if not re.fullmatch(r"\w+(-[\w.]+)+", triple):
        return None
    processor, *rest = triple.lower().split("-")
    if "linux" in rest:
        abi = rest[-1] if rest[-1] not in ("linux", "gnu") else ""
        return Machine(_processor(processor), "linux", abi)
    if any(part.startswith(("darwin", "macos")) for part in rest):
        return Machine(_processor(processor), "darwin")
    if any(part.startswith(("mingw", "windows", "cygwin", "w64")) for part in rest):
        return Machine(_processor(processor), "windows")
    return Machine(_processor(processor), rest[-1])


def _processor(name):
    name = name.lower()
    if re.fullmatch(r"armv\d.*", name):
        return "arm"
    return _SYNONYMS.get(name, re.sub(r"^i\d86$", "i686", name))


@functools.cache
def instruction_sets() -> str:
    """Returns the instruction sets of this processor that compilers use by themselves, as Linux lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        # Without such a list, the name of the processor stands for its instruction sets.
        lines = _apple_processor() if sys.platform == "darwin" else []
    return used_sets(lines)


def used_sets(lines: list[str]) -> str:
    """Returns the instruction sets in the lines of /proc/cpuinfo that compilers use by themselves."""
    for line in lines:
        title, _, content = line.partition(":")
        known = {"flags": _X86_SETS, "Features": _ARM_SETS, "processor name": r".*"}.get(title.strip())
        if known:
            return " ".join(sorted({word for word in content.split() if re.fullmatch(known, word)}))
    return ""


def _apple_processor():
    try:
        return [f"processor name: {toolchain.output(['sysctl', '-n', 'machdep.cpu.brand_string'])}"]
    except BuildError:
        return []
