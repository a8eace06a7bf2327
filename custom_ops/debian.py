# SPDX-License-Identifier: Apache-2.0
"""Downloads Debian packages, checks them against their SHA-256, and opens them.

No package manager is involved, so this works on every Linux distribution.
"""

import hashlib
import io
import tarfile
import urllib.request

from .errors import BuildError

# The mirror removes a package when no supported release of Debian contains it. The snapshot archive keeps every
# package.
SITES = ("https://deb.debian.org/debian", "https://snapshot.debian.org/archive/debian/20250901T000000Z")
TIMEOUT_SECONDS = 300


class DownloadError(BuildError):
    """No site delivered the package unchanged. The message says what each site delivered."""


def download(package: str, sha256: str) -> bytes:
    """Returns the bytes of a package from the first site that delivers it unchanged.

    Args:
        package: Its path in the archive of Debian.
        sha256: Its SHA-256.

    Raises:
        DownloadError: No site delivered it.
    """
    failures = []
    for site in SITES:
        url = f"{site}/{package}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                content = response.read()
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        digest = hashlib.sha256(content).hexdigest()
        if digest == sha256:
            return content
        failures.append(f"{url}: expected the SHA-256 {sha256}, received {digest}")
    raise DownloadError("; ".join(failures))


def open_files(package: bytes) -> tarfile.TarFile:
    """Opens the archive of the files of a package."""
    return tarfile.open(fileobj=io.BytesIO(_member(package, "data.tar.xz")), mode="r:xz")


def _member(archive, name):
    """Returns a member of an `ar` archive, the container of a Debian package."""
    position = len(b"!<arch>\n")
    while position < len(archive):
        header = archive[position : position + 60]
        size = int(header[48:58])
        start = position + len(header)
        if header[:16].decode().rstrip(" /") == name:
            return archive[start : start + size]
        position = start + size + size % 2
    raise ValueError(f"the archive has no member {name}")
