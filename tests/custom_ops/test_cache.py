# SPDX-License-Identifier: Apache-2.0
"""The cache of the compiled ops: finished files are used as they are, and changed or foreign files are not."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import filelock
import pytest

from keras_dynfilter.custom_ops import build, cache, compilers, trust, units
from keras_dynfilter.custom_ops.errors import BuildError
from tests.support.fake_compiler import FakeCompiler, wait_for

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")


@pytest.fixture
def compiler(tmp_path):
    return FakeCompiler(tmp_path)


def test_a_moved_read_only_cache_is_used_without_a_compiler(compiler):
    name = compiler.library().name
    with tempfile.TemporaryDirectory() as folder:  # which other users can enter, unlike the folders of pytest
        os.chmod(folder, 0o755)
        moved = shutil.copytree(compiler.cache, pathlib.Path(folder) / "moved")
        for path in [moved, *moved.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(moved.rglob("*"))
        code = "import os, sys\nsys.path.insert(0, sys.argv[1])\nimport filelock\nfrom custom_ops import build, units\n"
        code += "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"  # root may write everywhere
        code += "assert not os.access(sys.argv[2], os.W_OK)\n"
        code += "tensorflow = units.TensorFlow('2.15.1', '', '/elsewhere', '/elsewhere', ())\n"
        code += "print(build.build(tensorflow, sys.argv[2], print).ops)"
        compiler.cache = moved
        done = compiler.run_code(code, PATH="/nowhere", CXX="g++")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(moved / name)
        assert sorted(moved.rglob("*")) == before

        (moved / name).chmod(0o644)
        (moved / name).write_bytes(b"")
        done = compiler.run_code(code, CXX="g++")  # with a compiler, but without write access
        assert f"the cache folder {moved} cannot be used to build {name}: [Errno 13]" in done.stderr
        for path in [moved, *moved.rglob("*")]:
            path.chmod(0o755)


def test_a_finished_library_waits_for_nobody(compiler):
    path = compiler.library()
    code = f"import filelock, sys\nwith filelock.FileLock({str(compiler.cache / 'locks' / (path.name + '.lock'))!r}):\n"
    code += "    print('locked', flush=True)\n    sys.stdin.read()"
    holder = compiler.start_code(code)
    assert holder.stdout.readline() == "locked\n"
    done = compiler.build()
    assert done.stdout.strip() == str(path) and done.stderr == ""
    holder.communicate()


def test_two_builds_of_a_library_compile_everything_once_and_say_that_they_wait(compiler, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    compiler.behave(f'touch "{started}"; while [ ! -e "{release}" ]; do sleep 0.05; done')
    first = compiler.start()
    wait_for(started.exists, first)
    second = compiler.start()
    line = second.stderr.readline()  # printed while the first process compiles
    assert line.startswith("keras_dynfilter: waiting for another process that builds ") and not release.exists()
    release.touch()
    results = [process.communicate(timeout=3600)[0] for process in (first, second)]
    assert results[0] == results[1] != ""
    assert len(compiler.calls()) == len(set(compiler.calls())) > 3


def test_a_build_for_another_tensorflow_waits_only_for_common_files(compiler, tmp_path):
    other = compiler.library("2.15.0")
    assert compiler.calls()
    compiler.forget_calls()
    started, release = tmp_path / "started", tmp_path / "release"
    compiler.behave(f'touch "{started}"; while [ ! -e "{release}" ]; do sleep 0.05; done')
    first = compiler.start("2.15.1")
    wait_for(started.exists, first)
    assert compiler.library("2.15.0") == other  # while the first process compiles
    release.touch()
    output, errors = first.communicate(timeout=3600)
    assert output.strip() != str(other), errors
    compiled = {pathlib.Path(call).parent.name for call in compiler.calls()}
    assert compiled == {"tf", ""}  # and the link: the kernels do not depend on TensorFlow


def test_builds_of_two_libraries_share_the_files_that_they_compile(compiler, tmp_path):
    started, release = tmp_path / "started", tmp_path / "release"
    compiler.behave(f'touch "{started}"; while [ ! -e "{release}" ]; do sleep 0.05; done')
    processes = [compiler.start("2.15.0")]
    wait_for(started.exists, processes[0])
    processes.append(compiler.start("2.15.1"))
    lines = []
    while not any("waiting for another process that compiles the same files" in line for line in lines):
        lines.append(processes[1].stderr.readline())
        assert lines[-1], lines
    release.touch()
    assert len({process.communicate(timeout=3600)[0] for process in processes}) == 2
    kernels = [call for call in compiler.calls() if "/cc/cpu/" in call]
    assert len(kernels) == len(set(kernels)) > 3


def test_keys_of_cpu_objects_do_not_depend_on_nvcc():
    unit = units.ort_library(False).units[0]
    gcc = shutil.which("g++") or pytest.skip("needs g++")
    assert compilers.Compilers((gcc,), None).object_key(unit) == compilers.Compilers((gcc,), "/nowhere").object_key(
        unit
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def no_symbol(path):
    path.write_bytes(cache.ELF)
    cache.checksum_file(path).write_text(f"{hashlib.sha256(cache.ELF).hexdigest()}  {path.name}\n")


def no_checksum(path):
    cache.checksum_file(path).unlink()


def empty_checksum(path):
    cache.checksum_file(path).write_text("")


def writable_by_all(path):
    path.chmod(0o666)


def a_link(path):
    target = path.rename(path.with_name("other"))
    path.symlink_to(target)


def of_another_user(path):
    os.chown(path, NOBODY, NOBODY)


DAMAGES = {
    truncate: "does not have the SHA-256",
    empty: "does not have the SHA-256",
    no_symbol: "is not a library with the function keras_dynfilter",
    no_checksum: "No such file",
    empty_checksum: "does not have the SHA-256",
    writable_by_all: "other users can write",
    a_link: "is not an ordinary file",
}


@pytest.mark.parametrize("damage", [*DAMAGES, pytest.param(of_another_user, marks=as_root)])
def test_what_does_not_fit_is_not_used(damage, tmp_path):
    folder, path = cache.Cache(tmp_path / "cache"), tmp_path / "cache" / "library.so"
    folder.prepare()
    with folder.writing(path) as partial:
        partial.write_bytes(cache.ELF + b" keras_dynfilter")
    assert folder.reason_against(path, "keras_dynfilter") == ""
    damage(path)
    assert DAMAGES.get(damage, "belongs to another user") in folder.reason_against(path, "keras_dynfilter")


@pytest.mark.parametrize("damage", [truncate, a_link])
def test_what_does_not_fit_is_built_again(damage, compiler):
    path = compiler.library()
    content = path.read_bytes()
    for item in [path, *compiler.files("*.o")]:
        damage(item)
    compiler.forget_calls()
    assert compiler.library() == path
    assert path.read_bytes() == content and cache.Cache(compiler.cache).reason_against(path) == ""
    assert len(compiler.calls()) == len(compiler.files("*.o")) + 1


def test_checksums_have_the_format_of_sha256sum(compiler):
    path = compiler.library()
    subprocess.run(["sha256sum", "--check", "--strict", f"{path.name}.sha256"], cwd=path.parent, check=True)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_whatever_the_umask_nobody_else_can_write(umask, compiler):
    before = os.umask(umask)
    try:
        compiler.library()
    finally:
        os.umask(before)
    for path in [compiler.cache, *compiler.cache.rglob("*")]:
        assert not path.stat().st_mode & 0o022, path
    cache.Cache(compiler.cache)


def refuses(folder, text):
    """Checks that a build in a folder is refused, and that the folder stays as it is."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(BuildError, match=f"Expected the cache folder to be changeable by.*Received: .*{text}"):
        build.build(units.TensorFlow("2.15.1", "", "/include", "/lib", ()), folder)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_others_can_write_is_refused(compiler):
    compiler.library()
    compiler.cache.chmod(0o777)
    refuses(compiler.cache, r"other users can write .*cache \(mode 0777\)")
    compiler.cache.chmod(0o755)
    (compiler.cache / "objects").chmod(0o777)
    refuses(compiler.cache, r"other users can write .*objects \(mode 0777\)")


def test_a_folder_below_one_that_others_can_write_is_refused(compiler, tmp_path):
    compiler.library()
    tmp_path.chmod(0o757)
    refuses(compiler.cache, r"other users can write .* \(mode 0757\)")
    tmp_path.chmod(0o1777)  # like /tmp
    compiler.library()


@as_root
def test_a_folder_of_another_user_is_refused(compiler):
    compiler.library()
    os.chown(compiler.cache, NOBODY, NOBODY)
    refuses(compiler.cache, "belongs to another user")


def test_a_missing_folder_below_one_that_others_can_write_is_refused(compiler, tmp_path):
    tmp_path.chmod(0o777)
    done = compiler.build()
    assert "Expected the cache folder to be changeable by" in done.stderr and not compiler.calls()


def test_a_folder_of_a_group_of_this_user_alone_is_used(monkeypatch, tmp_path):
    tmp_path.chmod(0o775)
    monkeypatch.setattr(trust, "_is_own_group", lambda gid: False)
    assert "other users can write" in trust.reason_against_folder(tmp_path)
    monkeypatch.setattr(trust, "_is_own_group", lambda gid: gid == tmp_path.stat().st_gid)
    assert trust.reason_against_folder(tmp_path) == ""


def test_relative_paths_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "keras_dynfilter"
    for ignored in ("", "relative", "./relative", "~/relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache.cache_folder() == tmp_path / ".cache" / "keras_dynfilter"
    for refused in ("relative", "~/relative"):
        monkeypatch.setenv(cache.VARIABLE, refused)
        with pytest.raises(BuildError, match=f"to be an absolute path. Received: {cache.VARIABLE}={refused}"):
            cache.cache_folder()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert cache.cache_folder() == tmp_path


@pytest.mark.parametrize("home", ["relative", ".", "./home"])
def test_a_relative_home_makes_no_cache_in_the_working_folder(home, monkeypatch):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(BuildError, match=r"Expected HOME to be an absolute path\. Received: HOME="):
        cache.cache_folder()


def test_links_in_the_path_are_resolved_once(compiler, tmp_path):
    """Otherwise, who owns a link could lead to another folder after the check of the first one."""
    library = compiler.library()
    (tmp_path / "link").symlink_to(compiler.cache)
    (tmp_path / "deep").mkdir()
    (tmp_path / "to_deep").symlink_to(tmp_path / "deep")
    compiler.forget_calls()
    for path in (tmp_path / "link", tmp_path / "to_deep" / ".." / "link", tmp_path / "to_deep" / ".." / "cache"):
        assert cache.Cache(path).folder == compiler.cache.resolve()
        compiler.cache = path
        assert compiler.library() == library.resolve()
    assert not compiler.calls()


def test_a_pipe_in_the_place_of_a_log_or_library_does_not_block(compiler, tmp_path):
    library = compiler.library()
    content, log = library.read_bytes(), library.with_suffix(".log")
    for replace in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "elsewhere")):
        for path in (library, log):
            path.unlink()
            replace(path)
        assert compiler.library() == library and library.read_bytes() == content
        assert log.is_file() and not log.is_symlink() and "$ " in log.read_text()
    assert not (tmp_path / "elsewhere").exists()


def test_without_locks_the_build_goes_on(compiler, monkeypatch):
    """On some network file systems older versions of filelock raise NotImplementedError."""

    def acquire(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    folder = cache.Cache(compiler.cache)
    folder.prepare()
    with folder.lock(compiler.cache / "file") as locked:
        assert locked
    with folder.lock(compiler.cache / "file", wait=False) as locked:
        assert not locked  # another process may be at work
