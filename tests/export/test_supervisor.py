# SPDX-License-Identifier: Apache-2.0
"""A crash or a stop of the command line ends in a sentence and an exit status, never in a signal."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.legacy

# Runs several functions under supervision: imports once, prints "STATUS" after each.
CRASHES = """
import ctypes, os, resource, signal, sys
from keras_dynfilter.export.supervisor import supervised

def crash():
    ctypes.string_at(0)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def large_file():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.write(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), b"x" * 10)
    os.write(os.open(sys.argv[1], os.O_APPEND | os.O_WRONLY), b"x")

def usage():
    sys.exit(2)

for function in (crash, killed, large_file, usage, lambda: 0, lambda: 1):
    print(supervised(function), flush=True)
"""

WAITING = """
import pathlib, sys
from keras_dynfilter.export import atomic_write, supervisor

def main():
    with atomic_write.staged(pathlib.Path(sys.argv[1])) as written:
        written.write_text("half")
        print("ready", flush=True)
        while True:
            pass

sys.exit(supervisor.supervised(main))
"""


@pytest.mark.slow
def test_crashes_become_sentences(python, tmp_path):
    completed = python("-c", CRASHES, str(tmp_path / "file"))
    assert completed.stdout.split() == ["1", "1", "1", "2", "0", "1"], completed.stderr
    for text in ("ended by SIGSEGV", "ended by SIGKILL", "memory runs out", "ended by SIGXFSZ", "ulimit -f"):
        assert text in completed.stderr
    assert "Traceback" not in completed.stderr


def start_waiting(path, hang_up=signal.SIG_DFL):
    """Starts `WAITING` in a process group of its own, with an action for SIGHUP. Waits until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hang_up),  # the suite may run under nohup
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("group", [False, True])
def test_stops_clean_up(number, group, tmp_path):
    """The signal goes to the command alone, or also to its child, as Ctrl-C in a terminal."""
    process = start_waiting(tmp_path / "out")
    if group and number != signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate()  # the pipes close when the child has ended, too
    assert "Traceback" not in errors
    if number == signal.SIGKILL:
        assert process.returncode == -number  # nothing can catch it, but the child ends and cleans up
    else:
        assert process.returncode == 128 + number
        assert f"stopped by {number.name} before it was complete" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_signals_that_nohup_ignores_stay_ignored(tmp_path):
    process = start_waiting(tmp_path / "out", hang_up=signal.SIG_IGN)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.5)  # a process that does not ignore the signal ends
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped by SIGTERM" in errors and "SIGHUP" not in errors
    assert not list(tmp_path.iterdir())
