# SPDX-License-Identifier: Apache-2.0
"""Builds a wheel and checks that it has one top-level name, contains the whole package and can be imported."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from keras_dynfilter import environment
from tests.support.paths import ROOT

BUILD = """
import sys, importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest)
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""
USE = """
import pathlib, keras_dynfilter
from keras_dynfilter import export
from keras_dynfilter.custom_ops import sources
folder = pathlib.Path(keras_dynfilter.__file__).parent
assert pathlib.Path(export.__file__).parent == folder / "export", export.__file__
assert sources.FOLDER == folder / "custom_ops" / "cc", sources.FOLDER
print(folder, callable(export.export), len(list(sources.FOLDER.rglob("*.h"))))
"""


@pytest.fixture(scope="module", params=["links", "no_links"])
def wheel(tmp_path_factory, request):
    """Builds a wheel without TensorFlow, as pip's isolated builds do, and without a compiler. Returns its path.

    A checkout has links to the folders `export/` and `custom_ops/` in `keras_dynfilter/`, an archive may have none.
    """
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if files.returncode != 0:
        pytest.skip("not a git checkout")
    for name in files.stdout.split():
        is_link = (ROOT / name).is_symlink()
        if request.param == "links" if is_link else (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=source,
        env={**os.environ, "PATH": "/nowhere", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / done.stdout.split()[-1]


def test_wheel_is_pure_and_has_one_top_level_name(wheel):
    assert wheel.name.endswith("py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"keras_dynfilter"}
    needed = ("ops/ddf.py", "layers/dynamic_filter.py", "export/writers/onnx.py", "custom_ops/build.py", "py.typed")
    assert {f"keras_dynfilter/{name}" for name in needed} <= set(names)
    for source in (ROOT / "custom_ops" / "cc").rglob("*.*"):
        assert f"keras_dynfilter/custom_ops/{source.relative_to(ROOT / 'custom_ops')}" in names


def test_wheel_imports_under_the_same_names(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[:2] == [str(tmp_path / "keras_dynfilter"), "True"]


def test_other_backends_of_keras_are_refused(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Expected Keras to use the TensorFlow backend.*Received: .*'jax'"):
        environment.check_backend()
