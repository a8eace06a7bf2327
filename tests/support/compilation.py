# SPDX-License-Identifier: Apache-2.0
"""Compiles C++ programs and libraries of the tests, and keeps them in the cache of the compiled ops.

As for the ops, files that other users could change are not used, and files that were not used for long are removed.
"""

import concurrent.futures
import hashlib
import os
import shutil
import subprocess
import tempfile

from keras_dynfilter.custom_ops import cache, cleanup


def build(name, units, headers, flags, link):
    """Returns the path of a program or library. Builds the file if the cache does not have it.

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
    kept = cache.Cache(cache.cache_folder() / "tests")
    target = kept.folder / f"keras_dynfilter_{name}-{key.hexdigest()[:32]}"
    if not kept.reason_against(target):
        return target
    kept.prepare()
    cleanup.remove_partial(kept)
    with kept.lock(target):
        if kept.reason_against(target):  # no other process has built it in the meantime
            with kept.writing(target, mode=0o755) as partial, tempfile.TemporaryDirectory() as scratch:
                _compile(compiler, units, flags, link, scratch, partial)
    cleanup.remove_unused(kept)
    return target


def _compile(compiler, units, flags, link, scratch, output):
    """Compiles the units in parallel to the folder `scratch`, and links them."""

    def compiled(numbered):
        path = f"{scratch}/{numbered[0]}.o"
        run([compiler, *flags, "-x", "c++", "-c", str(numbered[1]), "-o", path])
        return path

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, enumerate(units)))
    run([compiler, *link, *objects, "-o", str(output)])


def run(command, **options):
    """Runs a command and returns its output.

    Raises:
        RuntimeError: If the command fails, with its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nreturned {done.returncode}\n{done.stdout}\n{done.stderr[-8000:]}")
    return done.stdout
