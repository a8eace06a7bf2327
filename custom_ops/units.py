# SPDX-License-Identifier: Apache-2.0
"""Lists the source files of each library, with the flags that compile them.

A library is named by the SHA-256 of what determines it: sources, flags, the version of TensorFlow, and the instruction
sets of this machine if the library is compiled for this machine. The versions of the compilers are not part of the
name, so a finished library is found where no compiler is installed.
"""

import dataclasses
import functools
import os
import pathlib
import platform
import re

from . import sources

XLA_FROM = (2, 20)  # the first TensorFlow whose headers contain xla/ffi/api/ffi.h
# The instruction sets of a portable library. The baseline comes first: the linker keeps the first copy of an inline
# function, and that copy has to run on every machine.
ISA_TARGETS = {"baseline": "x86-64", "v3": "x86-64-v3", "v4": "x86-64-v4"}


# A function or a name that the content of each library contains.
SYMBOLS = {
    "ops": "keras_dynfilter_choose_cpu_kernel",
    "xla": "keras_dynfilter_project_and_pool",
    "ort": "RegisterCustomOps",
}


@dataclasses.dataclass(frozen=True)
class TensorFlow:
    """The TensorFlow installation for which libraries are built. The libraries work with this version only.

    Attributes:
        version: The version.
        build: Further properties of the installation that distinguish it from others of the same version.
        include: The folder of its headers.
        lib: The folder of its libraries.
        flags: The flags of the compiler that its headers need.
    """

    version: str
    build: str
    include: str
    lib: str
    flags: tuple[str, ...]

    @classmethod
    def installed(cls) -> "TensorFlow":
        """Describes the TensorFlow that this interpreter imports."""
        import tensorflow as tf

        flags = [f for f in tf.sysconfig.get_compile_flags() if not f.startswith("-I")]
        build = f"{tf.version.GIT_VERSION} {tf.version.COMPILER_VERSION} cuda={tf.test.is_built_with_cuda()}"
        return cls(tf.version.VERSION, build, tf.sysconfig.get_include(), tf.sysconfig.get_lib(), tuple(flags))

    @property
    def minor(self) -> str:
        """The version without its last number, such as `"2.21"`."""
        return ".".join(re.findall(r"\d+", self.version)[:2])

    @property
    def has_xla(self) -> bool:
        """Whether the XLA library compiles with this version."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) >= XLA_FROM


@dataclasses.dataclass(frozen=True)
class Unit:
    """A source file and what determines its object file, except the compiler.

    Attributes:
        source: The source file.
        flags: The flags of the compiler.
        environment: What else determines the result, in words: the version of TensorFlow, or the processor.
        includes: Folders of foreign headers. Their place does not determine the result.
        headers: The SHA-256 of foreign headers that `environment` does not describe.
    """

    source: pathlib.Path
    flags: tuple[str, ...]
    environment: str = ""
    includes: tuple[str, ...] = ()
    headers: str = ""

    @property
    def is_cuda(self) -> bool:
        return self.source.suffix == ".cu"

    @property
    def key(self) -> str:
        """The SHA-256 of the flags, the environment and the sources. It does not depend on folders."""
        return sources.digest([str(self.flags), self.environment, *sources.contents([self.source])])


@dataclasses.dataclass(frozen=True)
class LibraryPlan:
    """What a library consists of.

    Attributes:
        name: `"ops"`, `"xla"` or `"ort"`.
        description: What the library contains, for messages.
        units: The units whose objects are linked.
        link: Arguments of the linker.
    """

    name: str
    description: str
    units: tuple[Unit, ...]
    link: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """A name that the content of the library contains."""
        return SYMBOLS[self.name]

    @property
    def has_cuda(self) -> bool:
        return any(unit.is_cuda for unit in self.units)

    @property
    def file_name(self) -> str:
        """The name of the file: the kind of library, the version of the ops, and the key."""
        link = [part for part in self.link if not part.startswith("-L")]
        key = sources.digest([*(unit.key for unit in self.units), *link])
        return f"{library_prefix(self.name)}-{sources.ops_version()}-{key[:32]}.so"


def library_prefix(name: str) -> str:
    """Returns the beginning of the names of all libraries of one kind."""
    return f"libkeras_dynfilter_{name}"


def ops_library(tensorflow: TensorFlow, cuda: bool) -> LibraryPlan:
    """Returns the plan of the library of ops with their CPU kernels and, if `cuda`, their CUDA kernels."""
    names = ["tf/ops.cc", "tf/kernels.cc", "tf/project_and_pool.cc"]
    units = [*_kernels(cuda), *(_framework(tensorflow, name, cuda) for name in names)]
    link = (f"-L{tensorflow.lib}", "-l:libtensorflow_framework.so.2")
    return LibraryPlan("ops", _description("ops", cuda), tuple(units), link)


def xla_library(tensorflow: TensorFlow, cuda: bool) -> LibraryPlan:
    """Returns the plan of the library that lowers the ops to XLA."""
    include = tensorflow.include
    folders = [f"{include}/external/highwayhash", f"{include}/external/farmhash_archive/src"]
    names = ["lowering.cc", "handlers.cc", "project_and_pool_lowering.cc", "project_and_pool_handler.cc"]
    units = [*_kernels(cuda), *(_framework(tensorflow, f"xla/{name}", cuda, *folders) for name in names)]
    link = (f"-L{tensorflow.lib}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2")
    return LibraryPlan("xla", _description("xla", cuda), tuple(units), link)


def ort_library(cuda: bool, headers: pathlib.Path | None = None) -> LibraryPlan:
    """Returns the plan of the library for ONNX Runtime.

    Args:
        cuda: Whether it contains the CUDA kernels.
        headers: The folder of the headers of ONNX Runtime, which the build needs. The name of the library does not
            depend on it: the library asks for one version of the API, whichever release the headers are from.
    """
    flags = ("-O2", "-fPIC", "-std=c++17", "-DNDEBUG", "-fvisibility=hidden", *_cuda_definition(cuda))
    source = sources.FOLDER / "ort" / "ops.cc"
    unit = Unit(source, flags)
    if headers is not None:
        content = sources.digest(sources.sha256(path) for path in sorted(headers.glob("*.h")))
        unit = Unit(source, flags, includes=(str(headers),), headers=content)
    return LibraryPlan("ort", _description("ONNX Runtime ops", cuda), (*_kernels(cuda), unit))


def _description(name, cuda):
    return name + (" with CUDA" if cuda else "")


def _kernels(cuda):
    return (_cuda_kernels() if cuda else []) + _cpu_kernels()


def _cpu_kernels():
    dispatch = sources.FOLDER / "cpu" / "isa_dispatch.cc"
    kernels = [path for path in sorted((sources.FOLDER / "cpu").rglob("*.cc")) if path != dispatch]
    march = os.environ.get("KERAS_DYNFILTER_MARCH", "native")
    if march != "portable":
        return [_cpu(dispatch), *(_cpu(source, march) for source in kernels)]
    units = [
        _cpu(source, target_march, f"-DKERAS_DYNFILTER_ISA_TARGET={target}")
        for target, target_march in ISA_TARGETS.items()
        for source in kernels
    ]
    return [_cpu(dispatch, None, "-DKERAS_DYNFILTER_PORTABLE"), *units]


def _cpu(source, march=None, *definitions):
    flags = ["-std=c++17", "-fPIC", "-O3", "-ffp-contract=fast", "-fvisibility=hidden"]
    flags += [f"-march={march}"] if march else []
    # A cache may be copied to a machine for which -march=native means something else.
    environment = _processor() if march == "native" else platform.machine()
    return Unit(source, (*flags, *definitions), environment)


def _cuda_kernels():
    architectures = re.findall(r"\w+", os.environ.get("KERAS_DYNFILTER_CUDA_ARCHITECTURES") or "80;90")
    targets = [flag for a in architectures for flag in ("-gencode", f"arch=compute_{a},code=sm_{a}")]
    targets += ["-gencode", f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]
    flags = ("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *targets)
    return [Unit(source, flags, platform.machine()) for source in sorted((sources.FOLDER / "cuda").rglob("*.cu"))]


def _framework(tensorflow, name, cuda, *includes):
    flags = ["-O2", "-fPIC", *tensorflow.flags, "-std=c++17", "-DNDEBUG", "-fvisibility=hidden"]
    environment = f"{platform.machine()} TensorFlow {tensorflow.version} {tensorflow.build}"
    includes = (tensorflow.include, *includes)
    return Unit(sources.FOLDER / name, (*flags, *_cuda_definition(cuda)), environment, includes)


def _cuda_definition(cuda):
    return ("-DKERAS_DYNFILTER_CUDA",) if cuda else ()


@functools.cache
def _processor():
    """Returns the type of the processor and its instruction sets, as Linux lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
