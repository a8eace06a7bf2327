# SPDX-License-Identifier: Apache-2.0
"""Finds onnxruntime's C and C++ headers, which no Python wheel holds.

The API is versioned: what is compiled with the headers of one release runs in newer ones. In this order they come from

1. the folder that the variable KERAS_DYNFILTER_ORT_INCLUDE names (`include` of an onnxruntime release archive),
2. a system package (`libonnxruntime-dev` of Debian 13 and newer),
3. on any Debian, that package of Debian 13, fetched from the mirror that apt is set up with, and only unpacked.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

VARIABLE = "KERAS_DYNFILTER_ORT_INCLUDE"
HEADER = "onnxruntime_cxx_api.h"
SYSTEM = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime")
SUBFOLDERS = (".", "onnxruntime", "core/session", "onnxruntime/core/session")
APT = pathlib.Path("/etc/apt")
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE, PACKAGE = "trixie", "libonnxruntime-dev"
SECONDS = 300


class HeadersError(RuntimeError):
    """The headers were not found; the message says what can be done."""


def find(cache, progress=lambda text: None):
    """Returns the folder that holds `onnxruntime_cxx_api.h`.

    Args:
        cache: Folder in which fetched headers are kept.
        progress: Called with a line of text before anything is fetched.

    Raises:
        HeadersError: They are not here, and cannot be fetched.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        found = _inside(chosen)
        if found is None:
            raise HeadersError(f"Expected {VARIABLE} to be a folder with {HEADER}. Received: {VARIABLE}={chosen}")
        return found
    kept = pathlib.Path(cache) / f"onnxruntime-{SUITE}"
    for folder in (*SYSTEM, kept):
        found = _inside(folder)
        if found is not None:
            return found
    try:
        _fetch(kept, progress)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stdout", None) or str(error)).strip().splitlines()[-1:]
        raise HeadersError(f"{_advice()} Debian's package could not be fetched: {''.join(said)}") from error
    return _inside(kept)


def _inside(folder):
    folders = (pathlib.Path(folder) / part for part in SUBFOLDERS)
    return next((path.resolve() for path in folders if (path / HEADER).is_file()), None)


def _advice():
    return (
        "onnxruntime's headers were not found. Install libonnxruntime-dev, or unpack a release of onnxruntime (1.18 or "
        f"newer) and name its folder `include` in the variable {VARIABLE}."
    )


def _fetch(target, progress):
    """Unpacks the headers of Debian's package into `target`, which appears when it is complete."""
    mirror = _mirror()
    if mirror is None or not KEYRING.is_file() or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise HeadersError(_advice())
    progress(f"keras_dynfilter: fetching onnxruntime's headers ({PACKAGE} of Debian {SUITE}), once")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        folder = pathlib.Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "package"):
            (folder / name).mkdir(parents=True)
        # apt checks signatures; its own lists and sources stay as they are.
        (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
        _run([*apt, "update", "--error-on=any"], folder)
        _run([*apt, "download", PACKAGE], folder)
        (package,) = folder.glob(f"{PACKAGE}_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(folder / "package")], folder)
        found = _inside(folder / "package" / "usr" / "include" / "onnxruntime")
        if found is None:
            raise HeadersError(f"{_advice()} The package {package.name} does not hold them.")
        shutil.copytree(found, folder / "headers")
        (folder / "headers").rename(target)


def _run(command, folder):
    subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=SECONDS
    )


def _mirror():
    """The first mirror of apt's sources, in either of their notations; None where this is no Debian."""
    try:
        if not re.search(r"^ID=debian$", pathlib.Path("/etc/os-release").read_text(), re.MULTILINE):
            return None
        files = [*sorted(APT.glob("sources.list.d/*.sources")), *sorted(APT.glob("sources.list"))]
        text = "\n".join(path.read_text() for path in files)
    except OSError:
        return None
    match = re.search(r"^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(\S*/debian/?)(?:\s|$)", text, re.MULTILINE)
    return match[1] if match else None
