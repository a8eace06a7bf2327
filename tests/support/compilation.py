# SPDX-License-Identifier: Apache-2.0
"""Compiles C++ programs and libraries of the tests, and keeps them until their sources or flags change."""

import concurrent.futures
import getpass
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile


def build(name, units, headers, flags, link):
    """Returns the path of a program or library. Builds the file if it does not exist.

    Args:
        name: The name of the file, before the key.
        units: The source files, all in C++.
        headers: The files that the sources may include.
        flags: The flags of the compiler.
        link: The flags of the linker.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise FileNotFoundError("the tests need g++, or the compiler that the variable CXX names")
    version = run([compiler, "--version"])
    key = hashlib.sha256("\n".join([version, *flags, *link]).encode())
    for path in sorted([*units, *headers]):
        key.update(path.read_bytes())
    folder = pathlib.Path(tempfile.gettempdir()) / f"keras_dynfilter_tests_{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{name}-{key.hexdigest()[:32]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as scratch:

        def compiled(numbered):
            path = f"{scratch}/{numbered[0]}.o"
            run([compiler, *flags, "-x", "c++", "-c", str(numbered[1]), "-o", path])
            return path

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, enumerate(units)))
        linked = f"{scratch}/linked"
        run([compiler, *link, *objects, "-o", linked])
        os.replace(linked, target)
    return target


def run(command, **options):
    """Runs a command and returns its output.

    Raises:
        RuntimeError: If the command fails, with its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nreturned {done.returncode}\n{done.stdout}\n{done.stderr[-8000:]}")
    return done.stdout
