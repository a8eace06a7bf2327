# SPDX-License-Identifier: Apache-2.0
"""Provides the libraries of ops: for `setup.py build_ext`, at the first use in a process, and on the command line.

There are two libraries: the ops with their CPU kernels and, if nvcc is installed, their CUDA kernels; and the lowering
of the ops to XLA. The XLA library takes a minute to compile. If this fails, the ops still work, without XLA. A third
library, with the same kernels for ONNX Runtime, is built on request (`build_ort`, or `python -m
keras_dynfilter.custom_ops.build --ort`).

If the variable CXX names a cross compiler, the libraries are built for its machine. In a checkout, `python -m
custom_ops.build` runs the builder alone, without TensorFlow and without the package.

A finished library in the cache is used as it is, without a compiler, a lock or write access. Only a missing library is
built.

`import keras_dynfilter` does not import this module, and importing this module does not import TensorFlow.

Environment variables:
    KERAS_DYNFILTER_CACHE: The folder of the objects and libraries (default `~/.cache/keras_dynfilter`).
    CXX: The command of the C++ compiler (default `g++`).
    KERAS_DYNFILTER_CUDA: `0` builds without CUDA even if nvcc is installed.
    KERAS_DYNFILTER_CUDA_ARCHITECTURES: The GPU architectures, by default `80;90`. PTX of the last one is added.
    KERAS_DYNFILTER_MARCH: The value of the compiler's `-march` (default `native`, this machine), or `portable`: kernels
        for AVX-512, AVX2 and the baseline of x86-64, chosen at run time; on other processors, kernels for the baseline.
        Use `portable` for libraries that run on other machines. For a cross compiler, `native` is the same as
        `portable`.
    KERAS_DYNFILTER_ORT_INCLUDE: The folder of the ONNX Runtime headers; see `ort_headers.py`.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from . import builder, cache, cleanup, installed, machines, ort_headers, toolchain, units
from .errors import BuildError
from .libraries import Libraries

Progress = Callable[[str], object]


def build(
    tensorflow: units.TensorFlow | None = None,
    cache_folder: str | os.PathLike | None = None,
    progress: Progress = lambda text: None,
) -> Libraries:
    """Returns the libraries for TensorFlow, and builds those that are not in the cache.

    Args:
        tensorflow: The `TensorFlow` for which to build; the installed one by default. A cross build needs one of its
            machine (`TensorFlow.unpacked`).
        cache_folder: The folder of the objects and libraries; `cache.cache_folder()` by default.
        progress: A function that is called with a line of text before the function compiles or waits.

    Raises:
        BuildError: The ops are not in the cache, and there is no compiler, it failed, or the cache cannot be used.
    """
    machine = machines.target()
    if tensorflow is None and machine.is_cross:
        raise BuildError(
            f"Expected CXX to be a compiler for this machine ({machines.this().name}), or `--tensorflow` to be a "
            f"folder with an unpacked TensorFlow for {machine.name}. Received: CXX={os.environ['CXX']}, and no "
            "`--tensorflow`"
        )
    source = _builder(cache_folder, progress)
    tensorflow = tensorflow or units.TensorFlow.installed()
    notes: list[str] = []
    ops, cuda = _with_cuda_if_possible(source, lambda cuda: units.ops_library(tensorflow, cuda), notes)
    if not tensorflow.has_xla:
        notes.append(f"no XLA kernels: they need TensorFlow {units.XLA_FROM[0]}.{units.XLA_FROM[1]} or newer")
        return Libraries(ops, None, tuple(notes), cuda)
    try:
        return Libraries(ops, source.provide(units.xla_library(tensorflow, cuda)), tuple(notes), cuda)
    except BuildError as error:
        return Libraries(ops, None, (*notes, f"no XLA kernels: {error}"), cuda)


def find_finished(tensorflow: units.TensorFlow | None = None) -> Libraries | None:
    """Returns the libraries without CUDA kernels for TensorFlow if the cache has them. Builds nothing."""
    tensorflow = tensorflow or units.TensorFlow.installed()
    source = _builder(None, lambda text: None)
    ops = source.finished(units.ops_library(tensorflow, False))
    if ops is None:
        return None
    return Libraries(ops, source.finished(units.xla_library(tensorflow, False)) if tensorflow.has_xla else None)


def build_ort(cache_folder: str | os.PathLike | None = None, progress: Progress = lambda text: None) -> pathlib.Path:
    """Returns the path of the library of ONNX Runtime ops, and builds it if it is not in the cache.

    The library contains the compiled kernels of the TensorFlow ops and runs without TensorFlow. The function takes the
    arguments of `build`.

    Raises:
        BuildError: The library is not in the cache, and there is no compiler, it failed, the headers of ONNX Runtime
            are missing, or the cache cannot be used.
    """
    source = _builder(cache_folder, progress)

    def complete(plan):
        """Adds the headers, which only a build needs."""
        return units.ort_library(plan.has_cuda, ort_headers.find_headers(source.cache.folder, progress))

    notes: list[str] = []
    path, _ = _with_cuda_if_possible(source, units.ort_library, notes, complete)
    for note in notes:
        progress(note)
    return path


def _builder(folder, progress):
    for machine in (machines.this(), machines.target()):
        machine.check_supported()
    return builder.Builder(cache.Cache(folder or cache.cache_folder()), progress)


def _with_cuda_if_possible(source, plan, notes, complete=lambda plan: plan):
    """Returns the path of a library, and whether it has CUDA kernels. Adds to `notes` why it has none."""
    if toolchain.cuda_is_off():
        notes.append("no CUDA kernels: KERAS_DYNFILTER_CUDA=0")
    elif machines.target().is_cross:
        notes.append("no CUDA kernels: nvcc compiles for this machine, and CXX for another one")
    elif toolchain.find_nvcc() is None:
        finished = source.finished(plan(True))
        if finished is not None:
            return finished, True
        notes.append("no CUDA kernels: nvcc was not found")
    else:
        try:
            return source.provide(plan(True), complete), True
        except ort_headers.HeadersError:
            if source.finished(plan(False)) is None:  # the other build needs the same headers
                raise
        except BuildError as error:
            notes.append(f"no CUDA kernels: {error}")
    return source.provide(plan(False), complete), False


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the ops, and removes old files from the cache. Files that failed to compile before are compiled again."""
    parser = argparse.ArgumentParser(prog="python -m keras_dynfilter.custom_ops.build", description=main.__doc__)
    parser.add_argument(
        "--ort", action="store_true", help="build the library for ONNX Runtime instead of the libraries for TensorFlow"
    )
    parser.add_argument(
        "--tensorflow",
        metavar="FOLDER",
        help="build for the TensorFlow whose wheel is unpacked in this folder, instead of the installed one",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="put the libraries into this folder, which has the form of the folder custom_ops/lib of the package",
    )
    options = parser.parse_args(arguments)
    if options.ort and options.tensorflow:
        parser.error("--ort and --tensorflow exclude each other")

    def progress(text):
        print(text, file=sys.stderr, flush=True)

    try:
        kept = _builder(None, progress).cache
        kept.forget_failures()
        cleanup.remove_partial(kept)
        cleanup.remove_unused(kept)
        if options.ort:
            paths, notes = [build_ort(progress=progress)], tuple[str, ...]()
            if options.output:
                paths = [installed.write_ort(pathlib.Path(options.output), *paths)]
        else:
            unpacked = units.TensorFlow.unpacked(options.tensorflow) if options.tensorflow else None
            libraries = build(unpacked, progress=progress)
            if options.output:
                tensorflow = unpacked or units.TensorFlow.installed()
                libraries = installed.write(pathlib.Path(options.output), tensorflow, libraries)
            paths, notes = [path for path in (libraries.ops, libraries.xla) if path is not None], libraries.notes
    except (BuildError, OSError) as failure:
        sys.exit(f"keras_dynfilter: the ops were not built: {failure}")
    for line in (*paths, *notes):
        print(line)


if __name__ == "__main__":
    main()
