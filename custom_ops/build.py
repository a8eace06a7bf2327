# SPDX-License-Identifier: Apache-2.0
"""Compiles the ops: for `setup.py build_ext`, at the first use in a process, and on the command line.

Two libraries are built: the ops with their CPU kernels and, if nvcc is installed, their CUDA kernels; and the lowering
of the ops to XLA. The XLA library takes a minute to compile. If this fails, the ops still work, without XLA. A third
library, with the same kernels for ONNX Runtime, is built on request (`build_ort`, or `python -m
keras_dynfilter.custom_ops.build --ort`).

Objects and libraries are named by the SHA-256 of everything that determines them: sources, flags, compiler, TensorFlow,
CUDA architectures. A stale file is therefore never loaded.

`import keras_dynfilter` does not import this module, and importing this module does not import TensorFlow.

Environment variables:
    KERAS_DYNFILTER_CACHE: The folder of the objects and libraries (default `~/.cache/keras_dynfilter`).
    KERAS_DYNFILTER_CUDA: `0` builds without CUDA even if nvcc is installed.
    KERAS_DYNFILTER_CUDA_ARCHITECTURES: The GPU architectures, by default `80;90`. PTX of the last one is added.
    KERAS_DYNFILTER_MARCH: The value of the compiler's `-march` (default `native`, this machine), or `portable`: kernels
        for AVX-512, AVX2 and the baseline of x86-64, chosen at run time. Use `portable` for libraries that run on
        other machines.
    KERAS_DYNFILTER_ORT_INCLUDE: The folder of the ONNX Runtime headers; see `ort_headers.py`.
"""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

SOURCES = pathlib.Path(__file__).resolve().parent / "cc"
XLA_FROM = (2, 16)
Progress = Callable[[str], object]
# The instruction sets of a portable library. The baseline comes first: the linker keeps the first copy of an inline
# function, and that copy has to run on every machine.
ISA_TARGETS = {"baseline": "x86-64", "v3": "x86-64-v3", "v4": "x86-64-v4"}


class BuildError(RuntimeError):
    """The ops could not be built. If the compiler failed, the message names the log file."""


@dataclasses.dataclass(frozen=True)
class TensorFlow:
    """The TensorFlow installation for which the libraries are built. The libraries work with this version only."""

    version: str
    include: str
    lib: str
    flags: tuple[str, ...]

    @classmethod
    def installed(cls) -> "TensorFlow":
        import tensorflow as tf

        flags = [f for f in tf.sysconfig.get_compile_flags() if not f.startswith("-I")]
        return cls(tf.version.VERSION, tf.sysconfig.get_include(), tf.sysconfig.get_lib(), tuple(flags))

    @property
    def has_xla(self) -> bool:
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) >= XLA_FROM


@dataclasses.dataclass(frozen=True)
class Libraries:
    """Paths of the two libraries. `xla` is None if it was not built; `notes` explain what is missing and why."""

    ops: pathlib.Path
    xla: pathlib.Path | None
    notes: tuple[str, ...] = ()


def cache_folder() -> pathlib.Path:
    """Returns the folder of the objects and libraries."""
    chosen = os.environ.get("KERAS_DYNFILTER_CACHE")
    if chosen:
        return pathlib.Path(chosen)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "keras_dynfilter"


def build(
    tensorflow: TensorFlow | None = None,
    cache: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Libraries:
    """Builds the libraries that are not in the cache.

    Args:
        tensorflow: The `TensorFlow` for which to build; the installed one by default.
        cache: The folder of the objects and libraries; `cache_folder()` by default.
        progress: A function that is called with a line of text before compilation starts.

    Returns:
        `Libraries`.

    Raises:
        BuildError: If there is no compiler, or it failed.
    """
    return _locked(_build, tensorflow, cache, progress)


def build_ort(
    tensorflow: TensorFlow | None = None,
    cache: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> pathlib.Path:
    """Builds the library of ONNX Runtime ops if it is not in the cache, and returns its path.

    The library contains the compiled kernels of the TensorFlow ops and runs without TensorFlow. It takes the arguments
    of `build`.

    Raises:
        BuildError: If there is no compiler, if it failed, or if the ONNX Runtime headers are missing.
    """
    return _locked(_build_ort, tensorflow, cache, progress)


def _locked(builder, tensorflow, cache, progress):
    """Runs `builder(compiler, cache, progress)` while no other process can build in this cache."""
    import filelock

    cache = pathlib.Path(cache or cache_folder())
    try:
        compiler = _Compiler.installed(tensorflow or TensorFlow.installed())
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / "lock"):
            return builder(compiler, cache, progress or (lambda text: None))
    except OSError as error:
        raise BuildError(f"the cache folder {cache} cannot be used: {error}") from error


def _build(compiler, cache, progress):
    """Builds the ops, with CUDA if possible, and the XLA library if possible."""
    log = _Log(cache / "build.log")
    notes = []

    def library(name, sources, cuda, link):
        units = compiler.kernels(cuda)
        units += [compiler.framework(SOURCES / source, cuda, name == "xla") for source in sources]
        _compile(units, cache, log, progress, name + (" with CUDA" if cuda else ""))
        return compiler.link(name, units, link, cache, log)

    def ops(cuda):
        sources = ["tf/ops.cc", "tf/kernels.cc", "tf/project_and_pool.cc"]
        return library("ops", sources, cuda, ["-l:libtensorflow_framework.so.2"])

    cuda = compiler.nvcc is not None
    try:
        path = ops(cuda)
    except BuildError as error:
        if not cuda:
            raise
        notes.append(f"no CUDA kernels: {error}")
        cuda, path = False, ops(False)
    if compiler.nvcc is None:
        notes.append("no CUDA kernels: nvcc was not found, or KERAS_DYNFILTER_CUDA=0")

    if not compiler.tensorflow.has_xla:
        notes.append(f"no XLA kernels: they need TensorFlow {XLA_FROM[0]}.{XLA_FROM[1]} or newer")
        return Libraries(path, None, tuple(notes))
    try:
        link = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
        sources = [
            "xla/lowering.cc",
            "xla/handlers.cc",
            "xla/project_and_pool_lowering.cc",
            "xla/project_and_pool_handler.cc",
        ]
        return Libraries(path, library("xla", sources, cuda, link), tuple(notes))
    except BuildError as error:
        return Libraries(path, None, (*notes, f"no XLA kernels: {error}"))


def _build_ort(compiler, cache, progress):
    """Builds the ONNX Runtime ops, with CUDA if possible."""
    from keras_dynfilter.custom_ops import ort_headers  # setup.py runs this file without the package

    try:
        include = ort_headers.find_headers(cache, progress)
    except ort_headers.HeadersError as error:
        raise BuildError(str(error)) from error
    log = _Log(cache / "build_ort.log")

    def library(cuda):
        units = [*compiler.kernels(cuda), compiler.ort(SOURCES / "ort" / "ops.cc", include, cuda)]
        _compile(units, cache, log, progress, "ONNX Runtime ops" + (" with CUDA" if cuda else ""))
        return compiler.link("ort", units, [], cache, log)

    if compiler.nvcc is not None:
        try:
            return library(True)
        except BuildError as error:
            progress(f"no CUDA kernels: {error}")
    return library(False)


@dataclasses.dataclass(frozen=True)
class _Unit:
    """A source file and the command that compiles it, without the output file."""

    source: pathlib.Path
    command: tuple[str, ...]
    salt: str

    @property
    def key(self):
        """The SHA-256 of the command and of the contents of the sources. It does not depend on the folder of the
        sources."""
        digest = hashlib.sha256(f"{self.salt} {self.command}".replace(str(SOURCES), "").encode())
        for path in _closure(self.source):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def object(self, cache):
        """Returns the path of the object file."""
        return cache / "objects" / f"{self.key[:32]}.o"

    def failure(self, cache):
        """Returns the path of the file that records why the unit failed to compile."""
        return self.object(cache).with_suffix(".failed")


def _closure(source):
    """Returns the source and all files in `cc/` that it includes, directly or indirectly."""
    seen: set[pathlib.Path] = set()
    queue = [source]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in re.findall(r'^\s*#include "([^"]+)"', path.read_text(), re.MULTILINE):
            if (SOURCES / name).is_file():
                queue.append(SOURCES / name)
    return sorted(seen)


@dataclasses.dataclass(frozen=True)
class _Compiler:
    """The compilers and the TensorFlow of a build. `salt` describes them and is part of every key."""

    tensorflow: TensorFlow
    cxx: str
    nvcc: str | None
    salt: str

    @classmethod
    def installed(cls, tensorflow):
        """Finds the compilers of this machine."""
        cxx = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
        if cxx is None:
            raise BuildError("no C++ compiler was found (g++, or the one that the variable CXX names)")
        nvcc = None
        if os.environ.get("KERAS_DYNFILTER_CUDA", "1") != "0":
            home = os.environ.get("CUDA_HOME")
            nvcc = shutil.which("nvcc", path=f"{home}/bin" if home else None)
        # The key includes what -march=native means on this machine, because a cache may be copied to another machine.
        native = ""
        if _march() == "native":
            native = _output([cxx, "-march=native", "-Q", "--help=target"]) + _processor()
        descriptions = [_output([cxx, "--version"]), native, _output([nvcc, "--version"]) if nvcc else ""]
        return cls(tensorflow, cxx, nvcc, "\n".join([tensorflow.version, tensorflow.lib, *descriptions]))

    def kernels(self, cuda):
        """Returns the units of the kernels, for the CPU and, if `cuda`, for the GPU."""
        return (self._cuda_kernels() if cuda else []) + self._cpu_kernels()

    def _cpu_kernels(self):
        dispatch = SOURCES / "cpu" / "isa_dispatch.cc"
        sources = [path for path in sorted((SOURCES / "cpu").rglob("*.cc")) if path != dispatch]
        if _march() != "portable":
            return [self.cpu(dispatch), *(self.cpu(source, _march()) for source in sources)]
        units = [
            self.cpu(source, march, f"-DKERAS_DYNFILTER_ISA_TARGET={target}")
            for target, march in ISA_TARGETS.items()
            for source in sources
        ]
        return [self.cpu(dispatch, None, "-DKERAS_DYNFILTER_PORTABLE"), *units]

    def cpu(self, source, march=None, *definitions):
        """Returns the unit of a source of the CPU kernels."""
        flags = ["-O3", "-ffp-contract=fast", "-fvisibility=hidden", *([f"-march={march}"] if march else [])]
        return self._unit(source, [self.cxx, "-std=c++17", "-fPIC", *flags, *definitions])

    def framework(self, source, cuda, xla=False):
        """Returns the unit of a source that uses TensorFlow or XLA."""
        include = self.tensorflow.include
        system = [include]
        if xla:
            system += [f"{include}/external/highwayhash", f"{include}/external/farmhash_archive/src"]
        flags = [flag for path in system for flag in ("-isystem", path)]
        flags += ["-DNDEBUG", "-fvisibility=hidden", *(["-DKERAS_DYNFILTER_CUDA"] if cuda else [])]
        return self._unit(source, [self.cxx, "-O2", "-fPIC", *self.tensorflow.flags, "-std=c++17", *flags])

    def ort(self, source, include, cuda):
        """Returns the unit of a source that uses ONNX Runtime."""
        flags = ["-DNDEBUG", "-fvisibility=hidden", *(["-DKERAS_DYNFILTER_CUDA"] if cuda else [])]
        headers = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(include.glob("*.h")))).hexdigest()
        command = [self.cxx, "-O2", "-fPIC", "-std=c++17", "-isystem", str(include), *flags]
        return self._unit(source, command, f"{self.salt}\n{headers}")

    def _cuda_kernels(self):
        return [self.cuda(source) for source in sorted((SOURCES / "cuda").rglob("*.cu"))]

    def cuda(self, source):
        """Returns the unit of a source of the CUDA kernels."""
        architectures = re.findall(r"\w+", os.environ.get("KERAS_DYNFILTER_CUDA_ARCHITECTURES") or "80;90")
        targets = [flag for a in architectures for flag in ("-gencode", f"arch=compute_{a},code=sm_{a}")]
        targets += ["-gencode", f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]
        flags = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *targets]
        return self._unit(source, [self.nvcc, *flags])

    def _unit(self, source, command, salt=None):
        return _Unit(source, (*command, f"-I{SOURCES}", "-c", str(source)), salt or self.salt)

    def link(self, name, units, libraries, cache, log):
        """Links a library if it is not in the cache, and returns its path."""
        objects = [str(unit.object(cache)) for unit in units]
        command = [self.cxx, "-shared", *objects]
        if any(unit.source.suffix == ".cu" for unit in units):
            # The CUDA runtime is linked before the libraries of TensorFlow, which contain stubs with the same names.
            plan = _output([self.nvcc, "--dryrun", "-x", "cu", "/dev/null"], merge=True)
            top = re.search(r"TOP=(.*)", plan)
            if top is None:
                raise BuildError(f"{self.nvcc} --dryrun does not print its folder, TOP")
            folder = pathlib.Path(top[1].strip()) / "lib64"
            command += [f"-L{folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        command += [f"-L{self.tensorflow.lib}", *libraries]
        key = hashlib.sha256("\n".join([self.salt, *command]).encode()).hexdigest()[:32]
        path = cache / f"libkeras_dynfilter_{name}-{key}.so"
        if not path.exists():
            _run(command, path, log)
        return path


class _Log:
    """A log file of the commands and their output. The first entry of a build replaces the earlier contents."""

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._mode = "w"

    def add(self, text):
        with self._lock, open(self.path, self._mode) as file:
            self._mode = "a"
            file.write(text + "\n")


def _compile(units, cache, log, progress, name):
    """Compiles the units that are not in the cache, in parallel. If a unit failed before, its recorded error is raised
    again."""
    missing = [unit for unit in units if not unit.object(cache).exists()]
    for unit in missing:
        if unit.failure(cache).exists():
            raise BuildError(unit.failure(cache).read_text())
    if not missing:
        return
    progress(f"keras_dynfilter: compiling {len(missing)} files ({name}). This takes minutes, once. Log: {log.path}")
    (cache / "objects").mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda unit: _compile_one(unit, cache, log), missing):
            pass


def _compile_one(unit, cache, log):
    try:
        _run(unit.command, unit.object(cache), log)
    except BuildError as error:
        unit.failure(cache).write_text(f"{error} (to try again: python -m keras_dynfilter.custom_ops.build)")
        raise


def _run(command, output, log):
    """Runs `command -o output`. The output file appears only when it is complete."""
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    command = [*command, "-o", str(partial)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log.add(f"$ {' '.join(command)}\n{result.stdout}")
    if result.returncode != 0:
        partial.unlink(missing_ok=True)
        raise BuildError(f"{pathlib.Path(command[0]).name} failed; see the log {log.path}")
    partial.rename(output)


def _march():
    return os.environ.get("KERAS_DYNFILTER_MARCH", "native")


def _output(command, merge=False):
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return result.stdout


def _processor():
    """Returns the instruction sets of the processor, as Linux lists them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the ops. Files that failed to compile before are compiled again."""
    parser = argparse.ArgumentParser(prog="python -m keras_dynfilter.custom_ops.build", description=main.__doc__)
    parser.add_argument(
        "--ort", action="store_true", help="build the library for ONNX Runtime instead of the libraries for TensorFlow"
    )
    ort = parser.parse_args(arguments).ort
    for note in (cache_folder() / "objects").glob("*.failed"):
        note.unlink()

    def progress(text):
        print(text, flush=True)

    try:
        if ort:
            print(build_ort(progress=progress))
            return
        built = build(progress=progress)
    except BuildError as failure:
        sys.exit(f"keras_dynfilter: the ops were not built: {failure}")
    for line in (built.ops, built.xla, *built.notes):
        print(line)


if __name__ == "__main__":
    main()
