# SPDX-License-Identifier: Apache-2.0
"""Runs compilers, and distinguishes a judgement of the source from an early end."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence

from .errors import CompilerError, CompilerStopped

# A compiler driver reports with an ordinary exit status that one of its programs was killed or ran out of a resource.
# These texts are in English, because the commands run with LC_ALL=C.
_RESOURCES = ("ENOSPC", "EDQUOT", "ENOMEM", "EAGAIN", "EIO", "EROFS", "EACCES", "EMFILE", "ENFILE", "EFBIG", "ESTALE")
_EARLY_ENDS = re.compile(
    "|".join(
        [
            *(re.escape(os.strerror(getattr(errno, name))) for name in _RESOURCES),
            "terminated program|died due to signal|unable to execute command|cannot execute|failed due to signal",
            r"\bkilled\b|(?<!compilation )\bterminated\b|out of memory|memory exhausted|bad_alloc",
            "internal compiler error|segmentation fault|bus error",
            "temporary file|error writing|write error|file truncated",
            "can't (create|write|close)|cannot (create|open output)",
        ]
    ),
    re.IGNORECASE,
)


class Commands:
    """Runs commands in several threads. Their texts go to a log file.

    Attributes:
        stopped: Set when no further command may start.
    """

    def __init__(self, log: pathlib.Path):
        self.log = log
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._mode = "w"

    def run(self, command: Sequence[str], subject: str) -> None:
        """Runs a command.

        Args:
            command: The program and its arguments.
            subject: What the command compiles or links, for the error.

        Raises:
            CompilerError: The command refused its input.
            CompilerStopped: The command could not start, or ended early.
        """
        name = pathlib.Path(command[0]).name
        try:
            # The output goes to a file. Descendants of a killed compiler would keep a pipe open.
            with tempfile.TemporaryFile() as output:
                process = self._start(command, output)
                try:
                    status = process.wait()
                except BaseException:
                    process.terminate()
                    raise
                finally:
                    with self._lock:
                        self._running.discard(process)
                output.seek(0)
                text = output.read().decode(errors="replace")
        except OSError as error:
            raise CompilerStopped(f"{name} could not run: {error}") from error
        self._add_to_log(f"$ {' '.join(command)}\n{text}")
        if status == 0:
            return
        where = f"; see the log {self.log}"
        if is_judgement(status, text) and not self.stopped.is_set():
            raise CompilerError(f"{name} failed on {subject}{where}")
        raise CompilerStopped(f"{name} was stopped ({_reason(status, text)}) while it worked on {subject}{where}")

    def _start(self, command, output):
        with self._lock:
            if self.stopped.is_set():
                raise CompilerStopped("the build was interrupted")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
            self._running.add(process)
            return process

    def stop(self) -> None:
        """Ends the running commands, and lets no further command start."""
        with self._lock:
            self.stopped.set()
            for process in self._running:
                process.terminate()

    def _add_to_log(self, text):
        # A log that cannot be written is no reason to stop a build.
        try:
            with self._lock:
                if self._mode == "w":
                    self.log.unlink(missing_ok=True)  # a pipe would block, and a link would lead elsewhere
                with open(self.log, self._mode, opener=_open_for_owner) as file:
                    self._mode = "a"
                    file.write(text + "\n")
        except OSError:
            pass


def _open_for_owner(path, flags):
    # Whatever the umask, other users cannot write. A pipe or a link that is new since the last command is an error.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


def is_judgement(status: int, text: str) -> bool:
    """Returns whether a compiler that failed has judged its source, so that it would fail again.

    Args:
        status: The exit status, as in `subprocess.Popen.returncode`.
        text: The output.
    """
    # A status above 128 is how a shell reports a signal. A compiler that refuses a source says why.
    return 0 < status < 128 and bool(text.strip()) and _EARLY_ENDS.search(text) is None


def _reason(status, text):
    number = -status if status < 0 else status - 128
    if number in signal.valid_signals() and number > 0:
        return signal.Signals(number).name
    line = next((line for line in text.splitlines() if _EARLY_ENDS.search(line)), "")
    return line.strip()[:200] or f"exit status {status}"
