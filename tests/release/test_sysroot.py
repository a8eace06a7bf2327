# SPDX-License-Identifier: Apache-2.0
"""The compiler with the libraries of an older Linux distribution."""

import io
import subprocess
import tarfile

from custom_ops import debian
from release import sysroot


def archive(members):
    """Returns an archive. A member is a name with the content of a file, or with the target of a link in a tuple."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as files:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[0]
                files.addfile(entry)
            else:
                entry.size = len(content)
                files.addfile(entry, io.BytesIO(content))
    return tarfile.open(fileobj=io.BytesIO(data.getvalue()))


def test_links_stay_in_the_folder(tmp_path):
    members = {
        ".": (".",),
        "./lib/x86_64-linux-gnu/libdl.so.2": b"old library",
        "./usr/lib/x86_64-linux-gnu/libdl.so": ("/lib/x86_64-linux-gnu/libdl.so.2",),
        "./usr/lib/x86_64-linux-gnu/libdl2.so": ("libdl.so",),
        "./usr/include/../../../outside": b"escaped",
        "./etc/passwd": b"not a library",
    }
    sysroot._unpack(archive(members), tmp_path / "folder")
    libraries = tmp_path / "folder" / "usr" / "lib" / "x86_64-linux-gnu"
    assert (libraries / "libdl.so").read_bytes() == (libraries / "libdl2.so").read_bytes() == b"old library"
    assert sorted(path.name for path in tmp_path.rglob("*") if not path.is_dir()) == [
        "libdl.so",
        "libdl.so.2",
        "libdl2.so",
    ]


def test_the_compiler_distinguishes_itself(tmp_path, monkeypatch):
    """Otherwise, its objects and those of the plain compiler would have equal keys in a cache."""
    monkeypatch.setattr(debian, "download", lambda *_: b"")
    monkeypatch.setattr(debian, "open_files", lambda _: archive({}))
    monkeypatch.setenv("CXX", str(tmp_path / "with space"))
    (tmp_path / "with space").write_text('#!/bin/sh\necho "compiler 1: $*"\n')
    (tmp_path / "with space").chmod(0o755)
    compiler = sysroot.compiler(tmp_path / "root folder")
    output = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert output[0] == "with the C and C++ libraries of Debian 11"
    assert output[1].startswith("compiler 1: --sysroot=") and output[1].endswith("--version")
    output = subprocess.run([compiler, "-c", "a b"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(output) == 1 and output[0].endswith("-c a b")
    assert sysroot.compiler(tmp_path / "root folder") == compiler
