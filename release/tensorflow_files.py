# SPDX-License-Identifier: Apache-2.0
"""Provides what the compiler needs of a version of TensorFlow: the headers and libraries of its wheel.

TensorFlow is not installed, so one environment builds for all versions, whatever Python they need.
"""

import pathlib
import subprocess
import sys
import zipfile

from custom_ops.units import WHEEL_FLAGS, TensorFlow

# The wheel of this package has the same headers as the one of `tensorflow`, and no libraries for GPUs.
PACKAGE = "tensorflow-cpu"
PYTHON = "3.11"  # all supported versions have wheels for it
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_27_x86_64")
LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


def fetch(minor: str, folder: pathlib.Path) -> TensorFlow:
    """Downloads the newest TensorFlow of a minor version, such as `"2.21"`, to an empty folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, *(part for name in PLATFORMS for part in ("--platform", name))]
    subprocess.run([*command, "--dest", str(folder), f"{PACKAGE}=={minor}.*"], check=True)
    (wheel,) = folder.glob("*.whl")
    unpack(wheel, folder)
    wheel.unlink()
    inside = folder / "tensorflow"
    return TensorFlow(
        wheel.name.split("-")[1], f"the wheel of {PACKAGE}", str(inside / "include"), str(inside), WHEEL_FLAGS
    )


def unpack(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks the headers and libraries of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("tensorflow/include/") or name.removeprefix("tensorflow/") in LIBRARIES:
                archive.extract(name, folder)
