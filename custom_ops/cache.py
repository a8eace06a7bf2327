# SPDX-License-Identifier: Apache-2.0
"""Keeps finished files in the cache folder: libraries, objects, and records of sources that do not compile.

A finished file has its SHA-256 in a file next to it, in the format of `sha256sum`. A file counts as finished only if
the two agree and no other user can change them. Files get their names when they are complete. So finished files are
used without a lock and without write access, and an interrupted build leaves only partial files that nobody uses. The
next build removes them.
"""

import contextlib
import hashlib
import os
import pathlib
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator

from . import trust
from .errors import BuildError

VARIABLE = "KERAS_DYNFILTER_CACHE"
PARTIAL = ".partial-"
ELF = b"\x7fELF"
POLL_SECONDS = 0.1


def cache_folder() -> pathlib.Path:
    """Returns the folder of the objects and libraries.

    Raises:
        BuildError: The variable is a relative path, or the user has no home folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not os.path.isabs(chosen):
            # In another working folder it would be another cache, and its libraries would be code from anywhere.
            raise BuildError(f"Expected {VARIABLE} to be an absolute path. Received: {VARIABLE}={chosen}")
        return pathlib.Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # The XDG specification says of relative paths: "consider the path invalid and ignore it".
        return pathlib.Path(base) / "keras_dynfilter"
    try:
        return pathlib.Path.home() / ".cache" / "keras_dynfilter"
    except RuntimeError as error:
        raise BuildError(f"there is no cache folder: {error} Set {VARIABLE} to a folder") from error


def reason_against_content(path: pathlib.Path, symbol: str = "") -> str:
    """Returns why a file is not the one that was built, or `""` if it is.

    Args:
        path: An object file or a library.
        symbol: The name of a function that the file contains.
    """
    try:
        content, recorded = path.read_bytes(), checksum_file(path).read_text(errors="replace").split()
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    if not recorded or recorded[0] != hashlib.sha256(content).hexdigest():
        return f"{path} does not have the SHA-256 that {checksum_file(path).name} records"
    if not content.startswith(ELF) or symbol.encode() not in content:
        return f"{path} is not a library with the function {symbol}" if symbol else f"{path} is not an object file"
    return ""


def checksum_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that records the SHA-256 of a file."""
    return path.with_name(f"{path.name}.sha256")


def failure_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that records why the compiler refused the source of an object file."""
    return path.with_name(f"{path.name}.failed")


class Cache:
    """The cache folder. It may be read-only, or not exist yet.

    Raises:
        BuildError: Other users can change the folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(os.path.abspath(folder))
        self.objects, self.locks = self.folder / "objects", self.folder / "locks"
        try:
            if self.folder.exists():
                self._check_trust()
        except OSError as error:
            raise BuildError(f"the cache folder {self.folder} cannot be used: {error}") from error

    def _check_trust(self):
        for folder in (self.folder, self.objects):
            reason = trust.reason_against_folder(folder) if folder.exists() else ""
            if reason:
                raise BuildError(
                    "Expected the cache folder to be changeable by this user and root only, because its libraries are "
                    f"code. Received: {folder}, but {reason}. Correct its owner and mode, or set {VARIABLE} to another "
                    "folder"
                )

    def reason_against(self, path: pathlib.Path, symbol: str = "") -> str:
        """Returns why a file is missing or must not be used, or `""` if it is finished and trusted."""
        try:
            reason = trust.reason_against_file(path) or trust.reason_against_file(checksum_file(path))
        except OSError as error:
            return f"{error.strerror}: {error.filename}"
        return reason or reason_against_content(path, symbol)

    def prepare(self) -> None:
        """Creates the folders, and removes what interrupted builds have left."""
        for folder in (self.objects, self.locks):
            for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
                missing.mkdir(mode=0o755, exist_ok=True)  # whatever the umask, other users cannot write
        self._check_trust()
        for partial in [*self.folder.glob(f"*{PARTIAL}*"), *self.objects.glob(f"*{PARTIAL}*")]:
            finished = partial.with_name(partial.name.split(PARTIAL)[0].removesuffix(".sha256").removesuffix(".failed"))
            with self.lock(finished, wait=False) as locked:
                if locked and partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                elif locked:
                    partial.unlink(missing_ok=True)

    def forget_failures(self) -> None:
        """Removes the records of sources that do not compile."""
        for record in self.objects.glob("*.failed"):
            with contextlib.suppress(OSError):
                record.unlink()

    @contextlib.contextmanager
    def lock(
        self,
        path: pathlib.Path,
        waiting: Callable[[], object] = lambda: None,
        stop: threading.Event | None = None,
        wait: bool = True,
    ) -> Iterator[bool]:
        """Makes this thread the only one, in all processes, that builds a file. Yields whether it is.

        Args:
            path: The file.
            waiting: A function that is called once before the thread waits for another one.
            stop: Ends the wait when it is set.
            wait: Whether to wait for another thread that builds the file.
        """
        import filelock

        lock = filelock.FileLock(self.locks / f"{path.name}.lock", mode=0o644)
        stop = stop or threading.Event()
        locked, first = False, True
        while not locked and not stop.is_set():
            try:
                lock.acquire(timeout=0)
                locked = True
            except filelock.Timeout:
                if not wait:
                    break
                if first:
                    waiting()
                first = False
                stop.wait(POLL_SECONDS)
            except NotImplementedError:  # A file system without locks. Two builds then do the same work, correctly.
                locked = True
        try:
            yield locked
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
        """Yields the path of a partial file, which becomes the finished file `path` if the block succeeds.

        The process has to hold the lock of `path`.
        """
        partial = path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(8)}")
        try:
            yield partial
            with open(partial, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            # The checksum comes first. If the power fails between the two steps, they do not agree, and the file is
            # built again.
            self.write_text(checksum_file(path), f"{digest}  {path.name}\n")
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def write_text(self, path: pathlib.Path, text: str) -> None:
        """Writes a text file. The file appears only when it is complete."""
        partial = path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(8)}")
        try:
            partial.write_text(text)
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _publish(partial, path):
    os.chmod(partial, 0o644)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
