# SPDX-License-Identifier: Apache-2.0
"""Builds that end early leave no record of a failure and no file that is used, and the next build succeeds."""

import os
import shutil
import signal

import pytest

from keras_dynfilter.custom_ops import cache
from keras_dynfilter.custom_ops.commands import Commands, is_judgement
from keras_dynfilter.custom_ops.errors import CompilerError, CompilerStopped
from tests.support.fake_compiler import FakeCompiler, wait_for


@pytest.fixture
def compiler(tmp_path):
    return FakeCompiler(tmp_path)


def assert_next_build_succeeds(compiler):
    compiler.behave("")
    path = compiler.library()
    assert cache.reason_against_content(path, "keras_dynfilter_choose_cpu_kernel") == ""
    assert not compiler.files(f"*{cache.PARTIAL}*")


EARLY_ENDS = {
    "killed": "kill -KILL $$",
    "interrupted": "kill -INT $$",
    "gcc killed": "echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1",
    "no disk": "echo 'a.cc:9:1: fatal error: error writing to /tmp/a.s: No space left on device'; exit 1",
    "no file": "exit 0",
    "an empty file": ': > "$output"; exit 0',
}


@pytest.mark.parametrize("behaviour", EARLY_ENDS.values(), ids=EARLY_ENDS)
def test_an_early_end_is_not_recorded(behaviour, compiler):
    compiler.behave(behaviour)
    done = compiler.build()
    assert done.returncode == 1 and "CompilerStopped" in done.stderr, done.stderr
    assert not compiler.files("*.failed") and not compiler.files("*.o") and not compiler.files("*.so")
    assert_next_build_succeeds(compiler)


def test_an_early_end_of_the_linker_leaves_no_library(compiler):
    compiler.behave('[ -z "$source" ] && { echo half > "$output"; kill -KILL $$; }')
    done = compiler.build()
    assert done.returncode == 1 and "SIGKILL" in done.stderr, done.stderr
    assert not compiler.files("*.so") and not compiler.files("*.so.sha256")
    assert_next_build_succeeds(compiler)


def test_a_judgement_of_the_source_is_recorded(compiler):
    compiler.behave("echo 'a.cc:9:1: error: expected a type'; exit 1")
    done = compiler.build()
    assert done.returncode == 1 and "CompilerError: compiler failed on cpu/" in done.stderr, done.stderr
    assert compiler.files("*.failed")
    compiler.behave("")
    compiler.forget_calls()
    done = compiler.build()  # the record counts, not the compiler
    assert done.returncode == 1 and "to try again: python -m keras_dynfilter.custom_ops.build" in done.stderr
    assert not compiler.calls()
    cache.Cache(compiler.cache).forget_failures()
    compiler.library()


def test_a_damaged_record_of_a_failure_is_a_build_error(compiler):
    path = compiler.library()
    for file in compiler.files("*.o"):
        cache.failure_file(file).write_bytes(b"\xff" * 9)
        file.unlink()
    path.unlink()
    done = compiler.build()
    assert done.returncode == 1 and "CompilerError: \ufffd" in done.stderr, done.stderr


# The compiler writes part of its output, and waits.
BLOCK = 'echo half > "$output"; touch "{started}"; while :; do sleep 1; done'


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_signals_to_the_process_group(name, compiler, tmp_path):
    started = tmp_path / "started"
    compiler.behave(BLOCK.format(started=started))
    process = compiler.start()
    wait_for(started.exists, process)
    os.killpg(process.pid, getattr(signal, name))
    process.communicate(timeout=3600)
    assert process.returncode != 0
    assert not compiler.files("*.failed") and not compiler.files("*.o") and not compiler.files("*.so")
    if name == "SIGKILL":
        assert compiler.files(f"*{cache.PARTIAL}*")  # nobody could remove it
    assert_next_build_succeeds(compiler)


def test_an_interrupted_builder_ends_its_compilers(compiler, tmp_path):
    started = tmp_path / "started"
    compiler.behave(f"echo $$ >> {tmp_path / 'pids'}; " + BLOCK.format(started=started))
    process = compiler.start()
    wait_for(started.exists, process)
    os.kill(process.pid, signal.SIGINT)  # the builder only
    _, errors = process.communicate(timeout=3600)
    assert "KeyboardInterrupt" in errors
    assert len(compiler.calls()) <= (os.cpu_count() or 1)  # none of the other files
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert_next_build_succeeds(compiler)


needs_gcc = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.cc"
    path.write_text("#include <string>\nstd::string f() { return std::string(9, 'a'); }\n")
    return str(path)


@needs_gcc
@pytest.mark.parametrize(
    "command",
    [
        "exec g++ -wrapper sh,-c,'kill -KILL $$' -c {source} -o {output}",
        "ulimit -v 60000; exec g++ -c {source} -o {output}",
        "ulimit -f 1; exec g++ -g -c {source} -o {output}",
        "exec g++ -c {source} -o /dev/full",
        "exec g++ -shared {source} -o /dev/full",
        "TMPDIR=/nowhere exec g++ -c {source} -o /nowhere/a.o",
    ],
)
def test_real_compilers_without_resources(command, source, tmp_path):
    """A process that the kernel kills, and limits of memory, of file sizes and of disk space."""
    command = command.format(source=source, output=tmp_path / "a.o")
    with pytest.raises(CompilerStopped):
        Commands(tmp_path / "log").run(["sh", "-c", command], "a.cc")


@needs_gcc
@pytest.mark.parametrize("text", ["int f( {", '#include "missing.h"', "static_assert(1 > 2);"])
def test_real_compilers_judge_sources(text, source, tmp_path):
    with open(source, "w") as file:
        file.write(text)
    with pytest.raises(CompilerError):
        Commands(tmp_path / "log").run(["g++", "-c", source, "-o", str(tmp_path / "a.o")], "a.cc")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", ["KILL", "INT", "TERM"])
def test_nvcc_whose_program_is_killed(name, tmp_path):
    for file, text in (("a.cu", "int f() { return 1; }\n"), ("g++", f"#!/bin/sh\nkill -{name} $$\n")):
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o755)
    command = ["nvcc", "-ccbin", str(tmp_path / "g++"), "-c", str(tmp_path / "a.cu"), "-o", str(tmp_path / "a.o")]
    with pytest.raises(CompilerStopped):
        Commands(tmp_path / "log").run(command, "a.cu")


def test_a_program_that_does_not_start(tmp_path):
    with pytest.raises(CompilerStopped, match="could not run"):
        Commands(tmp_path / "log").run([str(tmp_path / "missing")], "a.cc")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    Commands(tmp_path / "missing" / "log").run(["true"], "a.cc")


@pytest.mark.parametrize(
    "status, text, expected",
    [
        (1, "a.cc:1:1: error: 'terminates' was not declared", True),
        (1, "a.cc:1:10: fatal error: a.h: No such file or directory\ncompilation terminated.", True),
        (2, "a.cu(9): error: identifier is undefined", True),
        (255, "a.cu(9): error: identifier is undefined", False),  # how nvcc ends after a signal
        (137, "a.cc:1:1: error: expected a type", False),  # how a shell reports SIGKILL
        (-signal.SIGTERM, "a.cc:1:1: error: expected a type", False),
        (1, "", False),
        (9, "nvcc error   : 'cicc' died due to signal 9 (Kill signal)", False),
        (1, "clang: error: unable to execute command: Killed", False),
        (4, "a.cc:1:1: internal compiler error: Segmentation fault", False),
        (1, "cc1plus: out of memory allocating 65536 bytes", False),
        (1, "virtual memory exhausted: Cannot allocate memory", False),
        (1, "g++: fatal error: fork: Resource temporarily unavailable", False),
        (1, "/usr/bin/ld: final link failed: Disk quota exceeded", False),
        (1, "Assembler messages:\nFatal error: can't create a.o: Read-only file system", False),
        (1, "Cannot create temporary file in /tmp/: Permission denied", False),
    ],
)
def test_judgements(status, text, expected):
    assert is_judgement(status, text) is expected


def test_a_power_failure_between_checksum_and_file(compiler):
    path = compiler.library()
    path.write_bytes(b"")  # the name is on the disk, the content is not
    for path in compiler.files("*.o"):
        os.truncate(path, path.stat().st_size // 2)
    assert_next_build_succeeds(compiler)


def test_commands_end_when_stopped(tmp_path):
    commands = Commands(tmp_path / "log")
    commands.stop()
    with pytest.raises(CompilerStopped, match="interrupted"):
        commands.run(["true"], "a.cc")
