# SPDX-License-Identifier: Apache-2.0
"""Provides a compiler whose libraries run on Linux distributions that are older than this one.

The compiler is the one of this machine. The C and C++ libraries that it compiles and links against are those of
Debian 11 (glibc 2.31, libstdc++ of GCC 10), unpacked in a folder. The compiler of Debian 11 would be too old: it does
not know the x86-64 levels of the kernels.
"""

import os
import pathlib
import shlex
import shutil
import tarfile

from custom_ops import debian

TRIPLET = "x86_64-linux-gnu"
GCC = "10"
PACKAGES = {
    "pool/main/g/gcc-10/libgcc-s1_10.2.1-6_amd64.deb": (
        "e478f2709d8474165bb664de42e16950c391f30eaa55bc9b3573281d83a29daf"
    ),
    "pool/main/g/gcc-10/libstdc++-10-dev_10.2.1-6_amd64.deb": (
        "20b1f56863dcc5f187d6cb53b2aa6149bd013be4ec67e10c2c31a22fda619a01"
    ),
    "pool/main/g/gcc-10/libstdc++6_10.2.1-6_amd64.deb": (
        "5c155c58935870bf3b4bfe769116841c0d286a74f59eccfd5645693ac23f06b1"
    ),
    "pool/main/g/glibc/libc6_2.31-13+deb11u11_amd64.deb": (
        "05f7264da867b37f4c5ce49266b558ea1e81e05a9464f623152fca70f3550282"
    ),
    "pool/main/g/glibc/libc6-dev_2.31-13+deb11u11_amd64.deb": (
        "e7f7b45d9c5cfcf37609f0b6efd3c645272c812144703af89dfd32218fcb0fd3"
    ),
    "pool/main/l/linux/linux-libc-dev_5.10.223-1_amd64.deb": (
        "e3be603bd12377bb90fcfb0f2048ca3a81c886e49d6f09945b82159d1c54f7b2"
    ),
}


# The version is a part of the keys of object files, and these objects differ from those of the plain compiler.
SCRIPT = """#!/bin/sh
[ "$*" = --version ] && echo "with the C and C++ libraries of Debian 11"
exec {compiler} {options} "$@"
"""


def compiler(folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a compiler, a script that calls g++. Downloads and unpacks the libraries if necessary.

    Args:
        folder: The folder of the libraries, an absolute path.

    Raises:
        debian.DownloadError: A package could not be downloaded.
    """
    script = folder / "g++"
    if script.exists():
        return script
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for package, sha256 in PACKAGES.items():
        with debian.open_files(debian.download(package, sha256)) as files:
            _unpack(files, partial)
    # Only this library comes from the folder of GCC. The static libraries there are those of the old compiler.
    (partial / "libstdc++").mkdir()
    (partial / "libstdc++" / "libstdc++.so").symlink_to(f"../usr/lib/{TRIPLET}/libstdc++.so.6")
    (partial / "g++").write_text(_script(folder))
    (partial / "g++").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return script


def _script(folder):
    headers = [folder / "usr/include/c++" / GCC, folder / "usr/include" / TRIPLET / "c++" / GCC]
    options = [f"--sysroot={folder}", "-nostdinc++"]
    options += [part for header in headers for part in ("-isystem", str(header))]
    # Without these folders, the linker would find the libraries of this machine next to its compiler.
    libraries = folder / "usr/lib" / TRIPLET
    options += [
        f"-B{libraries}",
        *(f"-L{path}" for path in (folder / "libstdc++", libraries, folder / "lib" / TRIPLET)),
    ]
    compiler = shlex.quote(os.environ.get("CXX", "g++"))
    return SCRIPT.format(compiler=compiler, options=shlex.join(options))


def _unpack(files: tarfile.TarFile, folder: pathlib.Path) -> None:
    """Writes the headers and libraries of a package. Links with absolute targets get relative targets."""
    for entry in files:
        path = pathlib.PurePosixPath(os.path.normpath(entry.name))
        if not path.parts or path.parts[0] not in ("usr", "lib", "lib64"):
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.issym():
            above = "../" * (len(path.parts) - 1)
            link = above + entry.linkname[1:] if entry.linkname.startswith("/") else entry.linkname
            target.symlink_to(link)
        elif entry.isfile():
            content = files.extractfile(entry)
            assert content is not None
            target.write_bytes(content.read())
