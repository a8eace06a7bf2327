# SPDX-License-Identifier: Apache-2.0
"""The source distribution: it is complete, and its tests run in the folder into which it was unpacked."""

import os
import subprocess
import sys
import tarfile

import pytest

from tests.support import checkout

GENERATED = ("PKG-INFO", "setup.cfg", "keras_dynfilter.egg-info/")
TESTS = ("tests/custom_ops/test_installed.py", "tests/layers/test_untied_bias.py", "tests/release")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    checkout.copy(folder / "source")
    with tarfile.open(checkout.build("sdist", folder / "source", folder)) as file:
        yield file


def test_it_contains_every_file(archive):
    names = {entry.name.partition("/")[2] for entry in archive if not entry.isdir()}
    assert {name for name in names if not name.startswith(GENERATED)} == set(checkout.files())


def test_its_links_stay_inside(archive):
    links = {entry.name.partition("/")[2]: entry.linkname for entry in archive if entry.issym() or entry.islnk()}
    assert links == {f"keras_dynfilter/{name}": f"../{name}" for name in ("custom_ops", "export")}


@pytest.mark.slow
def test_its_tests_run(archive, tmp_path):
    archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for arguments in (("--collect-only", "tests"), ("-m", "not slow", *TESTS)):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
