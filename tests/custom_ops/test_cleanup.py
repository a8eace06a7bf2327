# SPDX-License-Identifier: Apache-2.0
"""Files of the cache that nobody needs are removed; all others stay."""

import os
import shutil
import time

import filelock
import pytest

from keras_dynfilter.custom_ops import build, cache, cleanup, sources
from tests.support.fake_compiler import FakeCompiler

OLD = time.time() - (cleanup.UNUSED_DAYS + 1) * cleanup.DAY
VERSION = sources.ops_version()


@pytest.fixture(autouse=True)
def reading_is_recorded(monkeypatch):
    """Whatever the file system of this machine is, reading a file counts as recorded."""
    status = os.statvfs

    def statvfs(path):
        found = list(status(path))
        found[8] &= ~getattr(os, "ST_NOATIME", 0)
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.fixture
def compiler(tmp_path):
    return FakeCompiler(tmp_path)


def age(*paths):
    for path in paths:
        os.utime(path, (OLD, OLD))


def of_other_sources(compiler):
    """Builds a library, and gives it and the files next to it the names of a library of other sources."""
    library = compiler.library()
    for path in compiler.files(f"{library.stem}*"):
        if path.parent == compiler.cache:
            path.rename(path.with_name(path.name.replace(VERSION, "0" * 16)))
    return library.with_name(library.name.replace(VERSION, "0" * 16))


def test_a_build_removes_what_nobody_has_used_for_long(compiler):
    other, objects = of_other_sources(compiler), compiler.files("*.o")
    old = [*compiler.files(f"{other.stem}*.so*"), other.with_suffix(".log"), *objects[:3]]
    old += [cache.checksum_file(path) for path in objects[:3]]
    failure = cache.failure_file(objects[4].with_name("f" * 32 + ".o"))
    failure.touch()
    foreign = [compiler.cache / "notes.log", compiler.cache / "movie.iso", compiler.cache / "movie.iso.sha256"]
    for path in foreign:
        path.touch()
    age(*old, failure, *foreign)
    kept = {path for path in compiler.cache.rglob("*") if path.parent.name != "locks"} - {*old, failure}
    library = compiler.library()  # its objects are used
    assert library.exists() and not other.exists() and not failure.exists()
    assert all(path.exists() for path in kept) and len(compiler.files("*.o")) == len(objects)
    assert not any(path.exists() for path in old if path.parent == compiler.cache)


@pytest.mark.parametrize("ending", ["", ".sha256"])
@pytest.mark.parametrize("use", ["read", "written"])
def test_files_that_were_used_stay(ending, use, compiler):
    other = of_other_sources(compiler)
    used = other.with_name(other.name + ending)
    age(*compiler.files(f"{other.stem}*"))
    os.utime(used, (time.time(), OLD) if use == "read" else (OLD, time.time()))
    compiler.library()
    assert other.exists() and cache.checksum_file(other).exists()


def test_a_use_is_recorded(compiler):
    library = compiler.library()
    age(library, *compiler.files("*.o"))
    assert compiler.library() == library
    assert library.stat().st_mtime > OLD + cleanup.DAY
    recorded = library.stat().st_mtime
    assert compiler.library() == library and library.stat().st_mtime == recorded  # once a day


def test_libraries_of_the_present_sources_stay(compiler):
    library = compiler.library()
    age(*compiler.files("*"))
    cleanup.remove_unused(cache.Cache(compiler.cache))
    assert library.exists() and cache.checksum_file(library).exists() and not compiler.files("*.o")


def test_locked_files_stay(compiler):
    other = of_other_sources(compiler)
    age(*compiler.files("*"))
    with filelock.FileLock(compiler.cache / "locks" / f"{other.name}.lock"):
        cleanup.remove_unused(cache.Cache(compiler.cache))
    assert other.exists()
    cleanup.remove_unused(cache.Cache(compiler.cache))
    assert not other.exists()


def test_where_reading_is_not_recorded_nothing_is_removed(compiler, monkeypatch):
    other = of_other_sources(compiler)
    age(*compiler.files("*"))
    before, flags = compiler.files("*"), os.statvfs(compiler.cache).f_flag
    monkeypatch.setattr(os, "statvfs", lambda path: type("", (), {"f_flag": flags | os.ST_NOATIME}))
    cleanup.remove_unused(cache.Cache(compiler.cache))
    assert compiler.files("*") == before and other in before


def test_a_cache_that_cannot_be_changed_stays_as_it_is(compiler, monkeypatch):
    of_other_sources(compiler)
    (compiler.cache / f"libkeras_dynfilter_ops-0-1.so{cache.PARTIAL}2").touch()
    age(*compiler.files("*"))
    before = compiler.files("*")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    kept = cache.Cache(compiler.cache)
    cleanup.remove_unused(kept)
    cleanup.remove_partial(kept)
    assert compiler.files("*") == before


def test_partial_files_of_killed_builds(compiler):
    """The next build removes them. If nothing has to be built, the next process does, after a day."""
    library, unit = compiler.library(), compiler.files("*.o")[0]
    names = [f"{library.name}{cache.PARTIAL}0a", f"{library.name}.sha256{cache.PARTIAL}0b"]
    names += [f"objects/{unit.name}{cache.PARTIAL}0c", f"objects/{unit.name}.failed{cache.PARTIAL}0d"]
    partial, headers = (
        [compiler.cache / name for name in names],
        compiler.cache / f"onnxruntime-1.21.0{cache.PARTIAL}0e",
    )
    foreign = compiler.cache / f"mine{cache.PARTIAL}0f"

    def leave():
        headers.mkdir()
        for path in (*partial, foreign, headers / "a.h"):
            path.touch()

    leave()
    assert compiler.library() == library
    assert all(path.exists() for path in (*partial, headers))  # perhaps of a builder whose locks are not visible
    age(*partial, headers)
    with filelock.FileLock(compiler.cache / "locks" / f"{unit.name}.lock"):
        assert compiler.library() == library
    assert [path.exists() for path in partial] == [False, False, True, True] and not headers.exists()
    shutil.rmtree(compiler.cache)
    compiler.library()
    leave()
    library.unlink()
    compiler.library()
    assert not any(path.exists() for path in (*partial, headers)) and foreign.exists()


def test_the_command_cleans_a_complete_cache(compiler, monkeypatch):
    other = of_other_sources(compiler)
    partial = compiler.cache / f"{other.name}{cache.PARTIAL}00"
    age(*compiler.files("*"))
    partial.touch()
    monkeypatch.setenv(cache.VARIABLE, str(compiler.cache))
    monkeypatch.setattr(build, "build", lambda tensorflow, progress: build.Libraries(other, None))
    build.main([])
    assert not other.exists() and not partial.exists()
