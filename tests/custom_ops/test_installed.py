# SPDX-License-Identifier: Apache-2.0
"""The libraries in the package: for which TensorFlow they are used, and what happens otherwise."""

import dataclasses
import os
import pathlib

import pytest

from keras_dynfilter.custom_ops import build, cache, compilers, installed, sources, toolchain, units
from keras_dynfilter.custom_ops.errors import BuildError
from keras_dynfilter.ops.backends import library
from tests.support.fake_compiler import FakeCompiler

pytestmark = pytest.mark.legacy


@pytest.fixture
def tensorflow(tmp_path):
    """A TensorFlow with three headers, of which the ops include two."""
    include = tmp_path / "include"
    for name in ("core/tensor.h", "core/unused.h", "tensorflow/core/public/version.h"):
        (include / name).parent.mkdir(parents=True, exist_ok=True)
        (include / name).write_text(f"// {name}")
    return units.TensorFlow("2.15.0", "build", str(include), "/lib", ("-DFLAG=1",))


@pytest.fixture
def folder(tensorflow, tmp_path, monkeypatch):
    """The folder of the libraries in a package that was built for `tensorflow`."""
    include = pathlib.Path(tensorflow.include)
    headers = [include / "core/../core/tensor.h", include / "tensorflow/core/public/version.h", "/usr/string.h"]
    compiler = FakeCompiler(tmp_path, headers)
    monkeypatch.setenv("CXX", str(compiler.path))
    monkeypatch.setenv("KERAS_DYNFILTER_CUDA", "0")
    installed.write(tmp_path / "lib", tensorflow, build.build(tensorflow, compiler.cache))
    return tmp_path / "lib"


def test_the_libraries_are_found(tensorflow, folder):
    found, reasons = installed.find(tensorflow, folder)
    assert found.ops.parent == folder / "2.15" and not found.cuda and reasons == ()
    assert found.xla is None and found.notes == ("no XLA kernels: they need TensorFlow 2.20 or newer",)


def test_a_package_without_libraries(tensorflow, tmp_path):
    assert installed.find(tensorflow, tmp_path / "missing") == (None, ())
    assert installed.find_ort(tmp_path / "missing") is None


def test_another_patch_release_with_the_same_headers(tensorflow, folder):
    for name in ("core/unused.h", "tensorflow/core/public/version.h"):
        pathlib.Path(tensorflow.include, name).write_text("// changed")
    found, _ = installed.find(dataclasses.replace(tensorflow, version="2.15.1", build="other"), folder)
    assert found is not None


@pytest.mark.parametrize("change", [lambda header: header.write_text("// changed"), os.remove])
def test_other_headers_are_refused(tensorflow, folder, change):
    change(pathlib.Path(tensorflow.include, "core", "tensor.h"))
    found, reasons = installed.find(dataclasses.replace(tensorflow, version="2.15.1"), folder)
    assert found is None
    assert reasons == (
        "the compiled ops in the package are for TensorFlow 2.15.0, and the headers of 2.15.1 differ from its own",
    )


def test_other_flags_are_refused(tensorflow, folder):
    found, (reason,) = installed.find(dataclasses.replace(tensorflow, flags=("-DFLAG=0",)), folder)
    assert found is None and "other compiler flags" in reason


def test_another_minor_version_is_refused(tensorflow, folder):
    found, reasons = installed.find(dataclasses.replace(tensorflow, version="2.16.2"), folder)
    assert found is None
    assert reasons == ("the compiled ops in the package are for TensorFlow 2.15, and 2.16.2 is installed",)


def test_damaged_files_are_refused(tensorflow, folder):
    (path,) = (folder / "2.15").glob("*.so")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    found, (reason,) = installed.find(tensorflow, folder)
    assert found is None and "a library in the package is damaged: " in reason and "SHA-256" in reason
    path.write_bytes(content)
    for text in ("", "{}", "[]", '{"tensorflow": "2.15.0"'):
        (folder / "2.15" / installed.RECORD).write_text(text)
        found, (reason,) = installed.find(tensorflow, folder)
        assert found is None and installed.RECORD in reason


def test_libraries_of_another_version_of_the_package_are_refused(tensorflow, folder):
    for path in (folder / "2.15").glob("*.so*"):
        path.rename(path.with_name(path.name.replace(sources.ops_version(), "0" * 16)))
    found, (reason,) = installed.find(tensorflow, folder)
    assert found is None and "a library in the package is of another version of the package: " in reason


def test_a_pipe_in_the_place_of_a_library_does_not_block(tensorflow, folder):
    (library,) = (folder / "2.15").glob("*.so")
    for path in (cache.checksum_file(library), library):
        path.unlink()
        os.mkfifo(path)
        found, (reason,) = installed.find(tensorflow, folder)
        assert found is None and f"{path} is not an ordinary file" in reason


def test_a_compiler_that_names_no_headers_is_refused(tensorflow, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(FakeCompiler(tmp_path).path))
    with pytest.raises(BuildError, match=f"does not name the headers in {tensorflow.include}"):
        installed.write(tmp_path / "lib", tensorflow, build.Libraries(tmp_path / "ops.so", None))


def test_included_files_of_a_real_compiler(native_library, tmp_path):
    spaced = tmp_path / "with space"
    spaced.mkdir()
    (spaced / "a b.h").write_text("")
    (tmp_path / "source.cc").write_text('#include "a b.h"\n#include "family.h"\n')
    unit = units.Unit(tmp_path / "source.cc", ("-std=c++17",), includes=(str(spaced),))
    files = compilers.Compilers.installed().included_files(unit)
    assert spaced / "a b.h" in files and "family.h" in {path.name for path in files}
    (tmp_path / "source.cc").write_text('#include "missing.h"\n')
    with pytest.raises(BuildError, match=r"could not list the files that .*source\.cc includes"):
        compilers.Compilers.installed().included_files(unit)


def test_the_library_for_onnxruntime(folder, tmp_path):
    path = tmp_path / f"libkeras_dynfilter_ort-{sources.ops_version()}-1.so"
    with cache.Cache(tmp_path).writing(path) as partial:
        partial.write_bytes(b"\x7fELF RegisterCustomOps")
    installed.write_ort(folder, path)
    assert installed.find_ort(folder) == folder / path.name
    (folder / path.name).write_bytes(b"\x7fELF")
    assert installed.find_ort(folder) is None


@pytest.fixture
def choices(monkeypatch):
    """Returns a function that returns the libraries that a process would load, for a package with given contents."""

    def choose(in_package, built, gpus=(), nvcc=None, cuda="1"):
        monkeypatch.setenv("KERAS_DYNFILTER_CUDA", cuda)

        def build_now(**_):
            if isinstance(built, Exception):
                raise built
            return built

        monkeypatch.setattr(installed, "find", lambda _: in_package)
        monkeypatch.setattr(build, "build", build_now)
        monkeypatch.setattr(toolchain, "find_nvcc", lambda: nvcc)
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _: list(gpus))
        return library._find_or_build()

    return choose


PACKAGED = build.Libraries(pathlib.Path("packaged"), None)
BUILT = build.Libraries(pathlib.Path("built"), None, cuda=True)


def test_libraries_in_the_package_come_first(choices):
    assert choices((PACKAGED, ()), BUILT) == PACKAGED
    assert choices((PACKAGED, ()), BUILT, gpus=["gpu"]) == PACKAGED
    assert choices((PACKAGED, ()), BUILT, nvcc="nvcc") == PACKAGED
    assert choices((PACKAGED, ()), BUILT, gpus=["gpu"], nvcc="nvcc", cuda="0") == PACKAGED


def test_a_gpu_and_its_compiler_build_what_the_package_lacks(choices):
    assert choices((PACKAGED, ()), BUILT, gpus=["gpu"], nvcc="nvcc") == BUILT
    with_cuda = dataclasses.replace(PACKAGED, cuda=True)
    assert choices((with_cuda, ()), BUILT, gpus=["gpu"], nvcc="nvcc") == with_cuda
    kept = choices((PACKAGED, ()), BuildError("broken"), gpus=["gpu"], nvcc="nvcc")
    assert kept.ops == PACKAGED.ops and kept.notes == ("no CUDA kernels: broken",)


def test_the_reason_against_the_package_is_kept(choices):
    assert choices((None, ("wrong version",)), BUILT).notes == ("wrong version",)
    with pytest.raises(BuildError, match=r"^wrong version; no compiler$"):
        choices((None, ("wrong version",)), BuildError("no compiler"))
