# SPDX-License-Identifier: Apache-2.0
"""A file or folder is replaced as a whole, and what a killed process left behind is cleaned up."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from keras_dynfilter.export import atomic_write
from tests.support.paths import ROOT

pytestmark = pytest.mark.legacy

# Writes to a path and stops or is killed at a step.
WRITER = """
import os, pathlib, signal, sys
from keras_dynfilter.export import atomic_write

path, step = pathlib.Path(sys.argv[1]), sys.argv[2]

def here(name):
    if step == name:
        print("ready", flush=True)
        sys.stdin.read()

replace = atomic_write._replace

def watched(written, path, earlier):
    rename = pathlib.Path.replace
    pathlib.Path.replace = lambda *names: (here("renaming"), rename(*names))[1]
    replace(written, path, earlier)

atomic_write._replace = watched
acquire = atomic_write.filelock.FileLock.acquire
atomic_write.filelock.FileLock.acquire = lambda *args, **options: (here("locking"), acquire(*args, **options))[1]
with atomic_write.staged(path) as written:
    written.mkdir()
    (written / "new").touch()
    here("writing")
"""


def started(path, step):
    """Starts a process that writes to `path`. Returns it when it has reached `step`, where it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), step],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def killed(path, step):
    process = started(path, step)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def write(path):
    with atomic_write.staged(path) as written:
        written.write_text("new")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_files_and_folders_are_replaced(tmp_path):
    for _ in range(2):
        write(tmp_path / "new folder" / "file")
        with atomic_write.staged(tmp_path / "folder") as written:
            written.mkdir()
            (written / "new").touch()
    assert names(tmp_path) == ["folder", "new folder"] and names(tmp_path / "folder") == ["new"]
    assert names(tmp_path / "new folder") == ["file"]


def test_a_failure_leaves_the_earlier_file(tmp_path):
    write(tmp_path / "file")
    with pytest.raises(KeyboardInterrupt), atomic_write.staged(tmp_path / "file") as written:
        written.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("name", ["x" * 240, "é" * 120, "[a]*?", "-", "a b\nc", ".hidden"])
def test_odd_names(name, tmp_path):
    write(tmp_path / name)
    assert names(tmp_path) == [name]


def test_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    with atomic_write.staged(atomic_write.pathlib.Path(".")) as written:
        written.mkdir()
        (written / "new").touch()
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["new"]


@pytest.mark.slow
def test_folders_of_killed_processes_are_removed(tmp_path):
    killed(tmp_path / "out", "writing")
    assert len(names(tmp_path)) == 1
    write(tmp_path / "other")
    assert names(tmp_path) == ["other"]


@pytest.mark.slow
def test_an_earlier_folder_returns_if_the_process_was_killed_between_two_renames(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").touch()
    killed(tmp_path / "out", "renaming")
    assert "out" not in names(tmp_path)
    write(tmp_path / "other")
    assert names(tmp_path) == ["other", "out"] and names(tmp_path / "out") == ["earlier"]


@pytest.mark.slow
def test_folders_of_living_processes_stay(tmp_path):
    process = started(tmp_path / "out", "writing")
    write(tmp_path / "other")
    process.communicate("")
    assert process.returncode == 0 and names(tmp_path) == ["other", "out"] and names(tmp_path / "out") == ["new"]


def test_folders_of_others_stay(tmp_path, monkeypatch):
    """Folders without the lock file, links, and folders of other users."""
    for name in (".hidden", "visible"):
        (tmp_path / name).mkdir()
    (tmp_path / "visible" / atomic_write.LOCK).touch()
    (tmp_path / ".link").symlink_to(tmp_path / "visible")
    write(tmp_path / "out")
    assert names(tmp_path) == [".hidden", ".link", "out", "visible"]
    (tmp_path / ".hidden" / atomic_write.LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    write(tmp_path / "out")
    assert ".hidden" in names(tmp_path)
    monkeypatch.undo()
    write(tmp_path / "out")
    assert names(tmp_path) == [".link", "out", "visible"]


@pytest.mark.slow
def test_folders_of_processes_that_were_killed_before_they_had_a_lock(tmp_path):
    killed(tmp_path / "out", "locking")
    assert len(names(tmp_path)) == 1 and not names(tmp_path / names(tmp_path)[0])
    write(tmp_path / "other")
    assert names(tmp_path) == ["other"]


def test_folders_without_a_lock_that_hold_something_stay(tmp_path):
    folder = tmp_path / f".out{atomic_write.MARK}abcdefgh"
    (folder / "content").mkdir(parents=True)
    write(tmp_path / "out")
    assert (folder / "content").is_dir()


@pytest.mark.parametrize("step", ["before the lock file", "before the lock"])
def test_a_living_process_whose_folder_is_taken_for_abandoned_makes_another(step, tmp_path, monkeypatch):
    """Another process that writes to the same place comes between two steps of this one."""
    acquire, calls = atomic_write.filelock.FileLock.acquire, []

    def interrupted(lock, *args, **options):
        calls.append(lock)
        if len(calls) == 1:
            if step == "before the lock":
                pathlib.Path(lock.lock_file).touch()
            write(tmp_path / "other")
            assert not os.path.exists(lock.lock_file)
        return acquire(lock, *args, **options)

    monkeypatch.setattr(atomic_write.filelock.FileLock, "acquire", interrupted)
    write(tmp_path / "out")
    assert names(tmp_path) == ["other", "out"] and (tmp_path / "out").read_text() == "new"
