# SPDX-License-Identifier: Apache-2.0
"""Builds a wheel and checks that it has one top-level name, contains the whole package and can be imported."""

import email
import os
import re
import subprocess
import sys
import zipfile

import pytest

from tests.support import checkout, pages
from tests.support.paths import ROOT

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
    folder = tmp_path_factory.mktemp("wheel")
    checkout.copy(folder / "source", links=request.param == "links")
    return checkout.build("wheel", folder / "source", folder)


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_wheel_is_pure_and_has_one_top_level_name(wheel):
    assert wheel.name.endswith("py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"keras_dynfilter"}
    needed = ("ops/ddf.py", "layers/dynamic_filter.py", "export/writers/onnx.py", "custom_ops/build.py", "py.typed")
    assert {f"keras_dynfilter/{name}" for name in needed} <= set(names)
    for source in (ROOT / "custom_ops" / "cc").rglob("*.*"):
        assert f"keras_dynfilter/custom_ops/{source.relative_to(ROOT / 'custom_ops')}" in names


def test_metadata_has_a_page_with_absolute_links_only(wheel, tmp_path):
    metadata = metadata_of(wheel)
    assert metadata["Description-Content-Type"] == "text/markdown"
    addresses = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert addresses["Repository"] == checkout.REPOSITORY
    (tmp_path / "page.md").write_text(metadata.get_payload())
    links = pages.links(tmp_path / "page.md")
    assert len(links) > 10 and all(link.startswith("https://") for link in links)


def test_the_page_renders_on_a_package_index(wheel):
    pytest.importorskip("twine", reason="needs twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_installs_no_tensorflow(wheel):
    """Installing the package leaves the user's TensorFlow, Keras, NumPy and protobuf as they are."""
    needs = metadata_of(wheel).get_all("Requires-Dist")
    assert [need for need in needs if "extra ==" not in need] == ["filelock>=3.12"]
    (tensorflow,) = [need for need in needs if re.search("extra == .tensorflow.$", need)]
    assert re.match(r"tensorflow[<>]", tensorflow)


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
