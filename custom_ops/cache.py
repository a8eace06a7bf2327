# SPDX-License-Identifier: Apache-2.0
"""Keeps finished files in the cache folder: libraries, objects, and records of sources that do not compile.

A finished file has its SHA-256 in a file next to it, in the format of `sha256sum`. A file counts as finished only if
the two agree and no other user can change them. Files get their names when they are complete. So finished files are
used without a lock and without write access, and an interrupted build leaves only partial files that nobody uses.
`cleanup.py` removes them.
"""

import contextlib
import hashlib
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from . import trust
from .errors import BuildError

VARIABLE = "KERAS_DYNFILTER_CACHE"
PARTIAL = ".partial-"
ELF = b"\x7fELF"
BINARY = (ELF, b"\xcf\xfa\xed\xfe")  # how objects and libraries begin on Linux and on macOS
POLL_SECONDS = 0.1
SECONDS_BETWEEN_NOTES = 24 * 3600  # so that a process that uses a file normally writes nothing


def cache_folder() -> pathlib.Path:
    """Returns the folder of the objects and libraries.

    Raises:
        BuildError: The variable or HOME is a relative path, or the user has no home folder.
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
        home = pathlib.Path.home()
    except RuntimeError as error:
        raise BuildError(f"there is no cache folder: {error} Set {VARIABLE} to a folder") from error
    if not home.is_absolute():
        raise BuildError(f"Expected HOME to be an absolute path. Received: HOME={home}. Or set {VARIABLE} to a folder")
    return home / ".cache" / "keras_dynfilter"


def reason_against_content(path: pathlib.Path, symbol: str = "") -> str:
    """Returns why a file is not the one that was built, or `""` if it is.

    Args:
        path: An object file or a library.
        symbol: The name of a function that the file contains.
    """
    for file in (path, checksum_file(path)):
        if file.exists() and not file.is_file():  # a pipe would block
            return f"{file} is not an ordinary file"
    try:
        content, recorded = path.read_bytes(), checksum_file(path).read_text(errors="replace").split()
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    if not recorded or recorded[0] != hashlib.sha256(content).hexdigest():
        return f"{path} does not have the SHA-256 that {checksum_file(path).name} records"
    if not content.startswith(BINARY) or symbol.encode() not in content:
        return f"{path} is not a library with the function {symbol}" if symbol else f"{path} is not an object file"
    return ""


def checksum_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that records the SHA-256 of a file."""
    return path.with_name(f"{path.name}.sha256")


def failure_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that records why the compiler refused the source of an object file."""
    return path.with_name(f"{path.name}.failed")


class Cache:
    """The cache folder. It may be read-only, or not exist yet. Links in its path are resolved once, here.

    Raises:
        BuildError: Other users can change the folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(os.path.realpath(folder))
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
        if not reason:
            _note_use(path)  # before the check, so that nobody removes the file between the check and its use
        return reason or reason_against_content(path, symbol)

    def prepare(self) -> None:
        """Creates the folders."""
        for folder in (self.objects, self.locks):
            for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
                missing.mkdir(mode=0o755, exist_ok=True)  # whatever the umask, other users cannot write
        self._check_trust()

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
            wait: Whether to wait for another thread that builds the file. If not, a file counts as locked on a file
                system without locks.
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
                if not wait:
                    break
                locked = True
        try:
            yield locked
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self, path: pathlib.Path, mode: int = 0o644) -> Iterator[pathlib.Path]:
        """Yields the path of a partial file, which becomes the finished file `path` if the block succeeds.

        The process has to hold the lock of `path`.

        Args:
            path: The file.
            mode: The mode of the file.
        """
        partial = path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(8)}")
        try:
            yield partial
            with open(partial, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            # The checksum comes first. If the power fails between the two steps, they do not agree, and the file is
            # built again.
            self.write_text(checksum_file(path), f"{digest}  {path.name}\n")
            _publish(partial, path, mode)
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


def _note_use(path):
    """Records as the time of its last change that a file is used. `cleanup.py` removes files that nobody uses."""
    with contextlib.suppress(OSError):  # a read-only cache, or a file of root
        if time.time() - path.stat().st_mtime > SECONDS_BETWEEN_NOTES:
            os.utime(path)


def _publish(partial, path, mode=0o644):
    os.chmod(partial, mode)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
