# SPDX-License-Identifier: Apache-2.0
"""Maps `export/` and `custom_ops/` into the package keras_dynfilter, and compiles the ops if TensorFlow is installed.

Compiled ops fit one version of TensorFlow only. `pip install --no-build-isolation .` sees the installed TensorFlow and
compiles the ops into the package. Any other installation (isolated build, no compiler) compiles them at first use.

The variable KERAS_DYNFILTER_REPOSITORY is the address of the repository, to which the links in the metadata lead.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import sys

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # for parts of the checkout. The whole package would import TensorFlow
from release import project_page  # noqa: E402

REPOSITORY = os.environ.get("KERAS_DYNFILTER_REPOSITORY", "")
VERSION = re.search('__version__ = "(.*)"', (ROOT / "keras_dynfilter" / "version.py").read_text())[1]
# Packages whose folders are at the top of the checkout. Symbolic links in `keras_dynfilter/` let editors find them.
FOLDERS = {"keras_dynfilter.export": "export", "keras_dynfilter.custom_ops": "custom_ops"}


class BuildOps(build_ext):
    def run(self):
        if self.editable_mode:
            return
        # The machine that runs the library may differ from the machine that builds it.
        os.environ.setdefault("KERAS_DYNFILTER_MARCH", "portable")
        target = pathlib.Path(self.build_lib) / "keras_dynfilter" / "custom_ops" / "lib"
        shutil.rmtree(target, ignore_errors=True)  # libraries of an earlier build
        try:
            from custom_ops import build, installed, units

            tensorflow = units.TensorFlow.installed()
            installed.write(target, tensorflow, build.build(tensorflow, progress=print))
        except Exception as error:  # whatever the reason, the package installs without compiled ops
            shutil.rmtree(target, ignore_errors=True)
            print(f"keras_dynfilter: could not compile the ops now; they are compiled at first use: {error!r}")

    def get_outputs(self):
        return []


class CompleteSource(sdist):
    """Adds the links to the folders outside the package, so that the package can be used where it was unpacked."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for folder in FOLDERS.values():
            (pathlib.Path(base_dir) / "keras_dynfilter" / folder).symlink_to(f"../{folder}")


def subpackages(folder):
    """Returns the packages in `folder` as suffixes: `""` for the folder itself, `".writers"` for a subfolder."""
    return ["", *(f".{package}" for package in find_packages(folder))]


has_tensorflow = importlib.util.find_spec("tensorflow") is not None

setup(
    version=VERSION,
    long_description=project_page.description((ROOT / "README.md").read_text(), REPOSITORY, f"v{VERSION}"),
    long_description_content_type="text/markdown",
    project_urls=project_page.addresses(REPOSITORY, f"v{VERSION}"),
    packages=[
        *find_packages(include=["keras_dynfilter", "keras_dynfilter.*"], exclude=[f"{name}*" for name in FOLDERS]),
        *(f"{name}{package}" for name, folder in FOLDERS.items() for package in subpackages(folder)),
    ],
    package_dir=FOLDERS,
    package_data={"keras_dynfilter": ["py.typed"], "keras_dynfilter.custom_ops": ["cc/**/*"]},
    ext_modules=[Extension("keras_dynfilter.custom_ops.lib", [])] if has_tensorflow else [],
    cmdclass={"build_ext": BuildOps, "sdist": CompleteSource},
)
