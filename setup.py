# SPDX-License-Identifier: Apache-2.0
"""Maps `export/` and `custom_ops/` into the package keras_dynfilter, and compiles the ops if TensorFlow is installed.

Compiled ops fit one version of TensorFlow only. `pip install --no-build-isolation .` sees the installed TensorFlow and
compiles the ops into the package. Any other installation (isolated build, no compiler) compiles them at first use.
"""

import importlib.util
import os
import pathlib
import platform
import shutil
import sys

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parent
# Packages whose folders are at the top of the checkout. Symbolic links in `keras_dynfilter/` let editors find them.
FOLDERS = {"keras_dynfilter.export": "export", "keras_dynfilter.custom_ops": "custom_ops"}


class BuildOps(build_ext):
    def run(self):
        if self.editable_mode:
            return
        # The machine that runs the library may differ from the machine that builds it.
        if platform.machine() == "x86_64":
            os.environ.setdefault("KERAS_DYNFILTER_MARCH", "portable")
        sys.path.insert(0, str(ROOT))  # the builder alone: importing the whole package would import TensorFlow
        target = pathlib.Path(self.build_lib) / "keras_dynfilter" / "custom_ops" / "lib"
        shutil.rmtree(target, ignore_errors=True)  # libraries of an earlier build
        try:
            from custom_ops import build, cache, units

            tensorflow = units.TensorFlow.installed()
            libraries = build.build(tensorflow, progress=print)
        except Exception as error:  # whatever the reason, the package installs without compiled ops
            print(f"keras_dynfilter: could not compile the ops now; they are compiled at first use: {error!r}")
            return
        folder = target / tensorflow.version
        folder.mkdir(parents=True)
        for path in (libraries.ops, libraries.xla):
            if path is not None:
                shutil.copy2(path, folder)
                shutil.copy2(cache.checksum_file(path), folder)

    def get_outputs(self):
        return []


def subpackages(folder):
    """Returns the packages in `folder` as suffixes: `""` for the folder itself, `".writers"` for a subfolder."""
    return ["", *(f".{package}" for package in find_packages(folder))]


has_tensorflow = importlib.util.find_spec("tensorflow") is not None

setup(
    packages=[
        *find_packages(include=["keras_dynfilter", "keras_dynfilter.*"], exclude=[f"{name}*" for name in FOLDERS]),
        *(f"{name}{package}" for name, folder in FOLDERS.items() for package in subpackages(folder)),
    ],
    package_dir=FOLDERS,
    package_data={"keras_dynfilter": ["py.typed"], "keras_dynfilter.custom_ops": ["cc/**/*"]},
    ext_modules=[Extension("keras_dynfilter.custom_ops.lib", [])] if has_tensorflow else [],
    cmdclass={"build_ext": BuildOps},
)
