# SPDX-License-Identifier: Apache-2.0
"""Finds a cross compiler for aarch64 and an emulator, and runs programs in it."""

import os
import pathlib
import shutil
import subprocess

from keras_dynfilter.custom_ops import machines

COMPILER = "aarch64-linux-gnu-g++"
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
PACKAGES = "g++-aarch64-linux-gnu and qemu-user"  # of Debian and Ubuntu
REQUIRED = os.environ.get("KERAS_DYNFILTER_REQUIRE_CROSS", "0") not in ("", "0")


def emulator():
    """Returns the path of the emulator, or None."""
    return next(filter(None, map(shutil.which, EMULATORS)), None)


def reason_against():
    """Returns why programs for aarch64 cannot be compiled and run, or `""` if they can."""
    if machines.this().processor == "aarch64":
        return "this machine needs no cross compiler for aarch64"
    missing = [] if shutil.which(COMPILER) else [COMPILER]
    missing += [] if emulator() else [EMULATORS[0]]
    return f"{' and '.join(missing)} not found; install {PACKAGES}" if missing else ""


def command(program):
    """Returns the command that runs a program. Its dynamic libraries are those of the cross compiler."""
    done = subprocess.run([COMPILER, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True)
    return [emulator(), "-L", str(pathlib.Path(done.stdout.strip()).resolve().parents[1]), str(program)]


def compile_program(source, program, *flags):
    """Compiles a C++ program.

    Raises:
        RuntimeError: With the output of the compiler.
    """
    done = subprocess.run(
        [COMPILER, "-std=c++17", *flags, str(source), "-o", str(program)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
