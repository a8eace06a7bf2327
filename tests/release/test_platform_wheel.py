# SPDX-License-Identifier: Apache-2.0
"""Wheels with compiled libraries, which are made from the pure wheel."""

import base64
import csv
import hashlib
import io
import zipfile

import pytest

platform_wheel = pytest.importorskip("release.platform_wheel", reason="needs the package wheel")

INFO = "keras_dynfilter-0.1.0.dist-info"
METADATA = """Metadata-Version: 2.4
Name: keras_dynfilter
Version: 0.1.0
Requires-Dist: keras>=2.15
Provides-Extra: tensorflow
Requires-Dist: tensorflow<2.23,>=2.15.1; extra == "tensorflow"
Provides-Extra: gpu
Requires-Dist: tensorflow[and-cuda]; extra == "gpu"
Provides-Extra: addons
Requires-Dist: tensorflow==2.15.1; extra == "addons"
Requires-Dist: tensorflow-addons==0.23.0; extra == "addons"

Version: 9 in the text
"""
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def record(content):
    rows = [(name, f"sha256={digest(data)}", len(data)) for name, data in content.items()]
    return "".join(f"{name},{checksum},{size}\n" for name, checksum, size in rows) + f"{INFO}/RECORD,,\n"


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@pytest.fixture
def pure(tmp_path):
    path = tmp_path / "keras_dynfilter-0.1.0-py3-none-any.whl"
    content = {"keras_dynfilter/__init__.py": b"x = 1\n"}
    content |= {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, f"{INFO}/RECORD": record(content).encode()}.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def libraries(tmp_path):
    """Folders of libraries for two versions of TensorFlow, and the library for ONNX Runtime."""
    for minor in ("2.20", "2.21"):
        (tmp_path / minor).mkdir()
        (tmp_path / minor / "ops.so").write_text(minor)
    (tmp_path / "ort.so").write_text("ort")
    return {minor: tmp_path / minor for minor in ("2.20", "2.21")}, {"ort.so": tmp_path / "ort.so"}


def content(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_record(files, info):
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(files[f"{info}/RECORD"].decode()))}
    assert set(rows) == set(files)
    for name, (checksum, size) in rows.items():
        if name != f"{info}/RECORD":
            assert checksum == f"sha256={digest(files[name])}" and int(size) == len(files[name])


def test_a_wheel_for_one_version_of_tensorflow(pure, libraries, tmp_path):
    folders, files = libraries
    path = platform_wheel.pack(pure, {"2.21": folders["2.21"]}, files, tmp_path, "2.21")
    assert path.name == "keras_dynfilter-0.1.0+tf2.21-py3-none-linux_x86_64.whl"
    packed, info = content(path), "keras_dynfilter-0.1.0+tf2.21.dist-info"
    lib = "keras_dynfilter/custom_ops/lib"
    assert packed[f"{lib}/2.21/ops.so"] == b"2.21" and packed[f"{lib}/ort.so"] == b"ort"
    assert f"{lib}/2.20/ops.so" not in packed and packed["keras_dynfilter/__init__.py"] == b"x = 1\n"
    metadata = packed[f"{info}/METADATA"].decode()
    changed = METADATA.replace("\nVersion: 0.1.0\n", "\nVersion: 0.1.0+tf2.21\n")
    changed = changed.replace("tensorflow<2.23,>=2.15.1;", "tensorflow==2.21.*;")
    assert metadata == changed.replace("tensorflow[and-cuda];", "tensorflow[and-cuda]==2.21.*;")
    assert packed[f"{info}/WHEEL"].decode() == (
        "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    )
    check_record(packed, info)


def test_a_wheel_for_all_versions_of_tensorflow(pure, libraries, tmp_path):
    folders, files = libraries
    path = platform_wheel.pack(pure, folders, files, tmp_path)
    assert path.name == "keras_dynfilter-0.1.0-py3-none-linux_x86_64.whl"
    packed = content(path)
    assert {f"keras_dynfilter/custom_ops/lib/{minor}/ops.so" for minor in folders} <= set(packed)
    assert packed[f"{INFO}/METADATA"].decode() == METADATA
    check_record(packed, INFO)


def test_equal_contents_give_equal_wheels(pure, libraries, tmp_path):
    folders, files = libraries
    first = platform_wheel.pack(pure, folders, files, tmp_path).read_bytes()
    (folders["2.20"] / "ops.so").touch()
    assert platform_wheel.pack(pure, folders, files, tmp_path).read_bytes() == first
