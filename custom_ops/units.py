# SPDX-License-Identifier: Apache-2.0
"""Lists the source files of each library, with the flags that compile them.

A library is named by the SHA-256 of what determines it: sources, flags, the version of TensorFlow, and the instruction
sets of this machine if the library is compiled for this machine. The versions of the compilers are not part of the
name, so a finished library is found where no compiler is installed.
"""

import dataclasses
import os
import pathlib
import re

from . import machines, sources
from .errors import BuildError
from .machines import Machine

XLA_FROM = (2, 20)  # the first TensorFlow whose headers contain xla/ffi/api/ffi.h
# The instruction sets of a portable library, with their -march, by processor. The baseline comes first: the linker
# keeps the first copy of an inline function, and that copy has to run on every machine.
ISA_TARGETS = {"x86_64": {"baseline": "x86-64", "v3": "x86-64-v3", "v4": "x86-64-v4"}}
# Other processors have one: what the compiler assumes by default. On aarch64 it includes NEON.
ONE_TARGET = {"baseline": ""}

# What `tf.sysconfig.get_compile_flags()` returns in the wheels of TensorFlow, for every processor.
WHEEL_FLAGS = ("-D_GLIBCXX_USE_CXX11_ABI=1", "--std=c++17", "-DEIGEN_MAX_ALIGN_BYTES=64")

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
        """Describes the TensorFlow that this interpreter imports.

        Raises:
            BuildError: TensorFlow is not installed.
        """
        try:
            import tensorflow as tf
        except ImportError as error:
            raise BuildError(f"TensorFlow cannot be imported: {error}") from error

        flags = [f for f in tf.sysconfig.get_compile_flags() if not f.startswith("-I")]
        build = f"{tf.version.GIT_VERSION} {tf.version.COMPILER_VERSION} cuda={tf.test.is_built_with_cuda()}"
        return cls(tf.version.VERSION, build, tf.sysconfig.get_include(), tf.sysconfig.get_lib(), tuple(flags))

    @classmethod
    def unpacked(cls, folder: str | os.PathLike) -> "TensorFlow":
        """Describes a TensorFlow for another machine, which cannot be imported: an unpacked wheel.

        Args:
            folder: The folder that contains `tensorflow/` and `tensorflow-*.dist-info/`.

        Raises:
            BuildError: The folder does not contain them.
        """
        package = pathlib.Path(folder) / "tensorflow"
        records = sorted(pathlib.Path(folder).glob("tensorflow*-*.dist-info/RECORD"))
        records = [path for path in records if re.match(r"tensorflow(_cpu(_aws)?)?-", path.parent.name)]
        if len(records) != 1 or not (package / "include").is_dir():
            raise BuildError(
                "Expected `--tensorflow` to be a folder with one unpacked wheel of TensorFlow (`tensorflow` and "
                f"`tensorflow-*.dist-info`). Received: {folder}"
            )
        version = records[0].parent.name.removesuffix(".dist-info").split("-")[1]
        return cls(version, sources.sha256(records[0]), str(package / "include"), str(package), WHEEL_FLAGS)

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
        machine: The machine for which the library is built.
        libraries: Libraries that it is linked with.
    """

    name: str
    description: str
    units: tuple[Unit, ...]
    machine: Machine
    libraries: tuple[pathlib.Path, ...] = ()

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
        names = [library.name for library in self.libraries]
        key = sources.digest([self.machine.description, *(unit.key for unit in self.units), *names])
        return f"{library_prefix(self.name)}-{sources.ops_version()}-{key[:32]}{self.machine.suffix}"


def library_prefix(name: str) -> str:
    """Returns the beginning of the names of all libraries of one kind."""
    return f"libkeras_dynfilter_{name}"


def ops_library(tensorflow: TensorFlow, cuda: bool) -> LibraryPlan:
    """Returns the plan of the library of ops with their CPU kernels and, if `cuda`, their CUDA kernels."""
    machine = machines.target()
    names = ["tf/ops.cc", "tf/kernels.cc", "tf/project_and_pool.cc"]
    units = [*_kernels(machine, cuda), *(_framework(machine, tensorflow, name, cuda) for name in names)]
    libraries = _framework_libraries(machine, tensorflow, "framework")
    return LibraryPlan("ops", _description("ops", cuda), tuple(units), machine, libraries)


def xla_library(tensorflow: TensorFlow, cuda: bool) -> LibraryPlan:
    """Returns the plan of the library that lowers the ops to XLA."""
    machine = machines.target()
    include = tensorflow.include
    folders = [f"{include}/external/highwayhash", f"{include}/external/farmhash_archive/src"]
    names = ["lowering.cc", "handlers.cc", "project_and_pool_lowering.cc", "project_and_pool_handler.cc"]
    units = [
        *_kernels(machine, cuda),
        *(_framework(machine, tensorflow, f"xla/{name}", cuda, *folders) for name in names),
    ]
    libraries = _framework_libraries(machine, tensorflow, "cc", "framework")
    return LibraryPlan("xla", _description("xla", cuda), tuple(units), machine, libraries)


def ort_library(cuda: bool, headers: pathlib.Path | None = None) -> LibraryPlan:
    """Returns the plan of the library for ONNX Runtime.

    Args:
        cuda: Whether it contains the CUDA kernels.
        headers: The folder of the headers of ONNX Runtime, which the build needs. The name of the library does not
            depend on it: the library asks for one version of the API, whichever release the headers are from.
    """
    machine = machines.target()
    flags = ("-O2", "-fPIC", "-std=c++17", "-DNDEBUG", "-fvisibility=hidden", *_cuda_definition(cuda))
    source = sources.FOLDER / "ort" / "ops.cc"
    unit = Unit(source, flags, machine.description)
    if headers is not None:
        content = sources.digest(sources.sha256(path) for path in sorted(headers.glob("*.h")))
        unit = Unit(source, flags, machine.description, (str(headers),), content)
    return LibraryPlan("ort", _description("ONNX Runtime ops", cuda), (*_kernels(machine, cuda), unit), machine)


def _description(name, cuda):
    return name + (" with CUDA" if cuda else "")


def _framework_libraries(machine, tensorflow, *names):
    ending = ".2.dylib" if machine.system == "darwin" else ".so.2"
    return tuple(pathlib.Path(tensorflow.lib) / f"libtensorflow_{name}{ending}" for name in names)


def _kernels(machine, cuda):
    return (_cuda_kernels(machine) if cuda else []) + _cpu_kernels(machine)


def _cpu_kernels(machine):
    dispatch = sources.FOLDER / "cpu" / "isa_dispatch.cc"
    kernels = [path for path in sorted((sources.FOLDER / "cpu").rglob("*.cc")) if path != dispatch]
    march = os.environ.get("KERAS_DYNFILTER_MARCH") or "native"
    # The processor of another machine is not known.
    if march == "portable" or (march == "native" and machine.is_cross):
        units = [
            _cpu(machine, source, [f"-march={target_march}"] if target_march else [], target)
            for target, target_march in ISA_TARGETS.get(machine.processor, ONE_TARGET).items()
            for source in kernels
        ]
        return [_cpu(machine, dispatch, ["-DKERAS_DYNFILTER_PORTABLE"]), *units]
    flag = machine.native_flag if march == "native" else f"-march={march}"
    return [_cpu(machine, dispatch), *(_cpu(machine, source, [flag]) for source in kernels)]


def _cpu(machine, source, flags=(), isa_target=None):
    flags = ["-std=c++17", "-fPIC", "-O3", "-ffp-contract=fast", "-fvisibility=hidden", *flags]
    flags += [f"-DKERAS_DYNFILTER_ISA_TARGET={isa_target}"] if isa_target else []
    # A cache may be copied to a machine for which `native` means something else.
    environment = machine.description + (machines.instruction_sets() if machine.native_flag in flags else "")
    return Unit(source, tuple(flags), environment)


def _cuda_kernels(machine):
    architectures = re.findall(r"\w+", os.environ.get("KERAS_DYNFILTER_CUDA_ARCHITECTURES") or "80;90")
    targets = [flag for a in architectures for flag in ("-gencode", f"arch=compute_{a},code=sm_{a}")]
    targets += ["-gencode", f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]
    flags = ("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *targets)
    return [Unit(source, flags, machine.name) for source in sorted((sources.FOLDER / "cuda").rglob("*.cu"))]


def _framework(machine, tensorflow, name, cuda, *includes):
    flags = ["-O2", "-fPIC", *tensorflow.flags, "-std=c++17", "-DNDEBUG", "-fvisibility=hidden"]
    environment = f"{machine.description} TensorFlow {tensorflow.version} {tensorflow.build}"
    includes = (tensorflow.include, *includes)
    return Unit(sources.FOLDER / name, (*flags, *_cuda_definition(cuda)), environment, includes)


def _cuda_definition(cuda):
    return ("-DKERAS_DYNFILTER_CUDA",) if cuda else ()
