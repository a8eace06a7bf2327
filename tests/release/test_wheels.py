# SPDX-License-Identifier: Apache-2.0
"""The wheels of a release: which TensorFlow they take, and which Linux distributions they run on."""

import shutil
import subprocess
import zipfile

import pytest

from custom_ops import build, debian, units
from keras_dynfilter.custom_ops import cache
from release import sysroot, tensorflow_files

wheelfile = pytest.importorskip("wheel.wheelfile", reason="needs the package wheel")
wheels = pytest.importorskip("release.wheels", reason="needs the package wheel")
from release import platform_wheel  # noqa: E402

# With the libraries of a newer Linux, this needs a function of glibc 2.34.
SOURCE = """
#include <pthread.h>

#include <sstream>

extern "C" int run(void* (*function)(void*)) {
  pthread_t thread;
  return pthread_create(&thread, nullptr, function, nullptr) + std::ostringstream("text").str().size();
}
"""


def pure_wheel(folder):
    path = folder / "keras_dynfilter-0.1.0-py3-none-any.whl"
    info = "keras_dynfilter-0.1.0.dist-info"
    with wheelfile.WheelFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.4\nName: keras_dynfilter\nVersion: 0.1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return path


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Returns a function that compiles a library with a compiler and returns a wheel with it."""
    pytest.importorskip("auditwheel", reason="needs auditwheel")
    shutil.which("patchelf", path=wheels.search_path()) or pytest.skip("needs patchelf")

    def pack(compiler):
        (tmp_path / "source.cc").write_text(SOURCE)
        library = tmp_path / "library.so"
        command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", tmp_path / "source.cc"]
        subprocess.run([*command, "-o", library], check=True)
        return platform_wheel.pack(pure_wheel(tmp_path), {}, {"library.so": library}, tmp_path, "2.21")

    return pack


@pytest.mark.slow
def test_wheels_run_where_tensorflow_runs(packed, tmp_path, monkeypatch):
    shutil.which("g++") or pytest.skip("needs g++")
    monkeypatch.delenv("CXX", raising=False)
    try:
        compiler = sysroot.compiler(cache.cache_folder() / "sysroot")
    except debian.DownloadError as error:
        pytest.skip(f"needs the packages of Debian 11: {error}")
    wheels.audit(packed(compiler), tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name == "keras_dynfilter-0.1.0+tf2.21-py3-none-manylinux_2_27_x86_64.whl"
    library = zipfile.ZipFile(wheel).read("keras_dynfilter/custom_ops/lib/library.so")
    assert library == (tmp_path / "library.so").read_bytes()  # its checksum stays correct


@pytest.mark.slow
def test_libraries_of_newer_linux_distributions_are_refused(packed, tmp_path):
    compiler = shutil.which("g++") or pytest.skip("needs g++")
    wheel = packed(compiler)
    if b"GLIBC_2.34" not in (tmp_path / "library.so").read_bytes():
        pytest.skip("this machine has an old glibc")
    with pytest.raises(subprocess.CalledProcessError):
        wheels.audit(wheel, tmp_path / "dist")


def test_a_missing_xla_library_ends_the_build(monkeypatch, tmp_path):
    libraries = build.Libraries(tmp_path / "ops.so", None, ("no XLA kernels: broken",))
    monkeypatch.setattr(build, "build", lambda *_: libraries)
    monkeypatch.setattr(units, "XLA_FROM", (2, 20))
    with pytest.raises(build.BuildError, match="no XLA kernels: broken"):
        wheels.compile_ops(units.TensorFlow("2.20.0", "", "", "", ()), tmp_path)
    assert wheels.compile_ops(units.TensorFlow("2.19.1", "", "", "", ()), tmp_path) == libraries


def test_only_what_the_compiler_needs_is_unpacked(tmp_path):
    needed = {"tensorflow/include/core/tensor.h", *(f"tensorflow/{name}" for name in tensorflow_files.LIBRARIES)}
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name in (*needed, "tensorflow/python/pywrap.so", "tensorflow/__init__.py", "other/include/a.h"):
            archive.writestr(name, name)
    tensorflow_files.unpack(tmp_path / "a.whl", tmp_path / "files")
    unpacked = {path.relative_to(tmp_path / "files").as_posix() for path in (tmp_path / "files").rglob("*.*")}
    assert unpacked == needed
