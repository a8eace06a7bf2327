# SPDX-License-Identifier: Apache-2.0
"""Starts workers, and turns the death of a worker into a failure of the input that it ran."""

import contextlib
import json
import mmap
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
from typing import Any

from tests.fuzz.worker import PROGRESS
from tests.support.paths import ROOT

SECONDS = 10.0  # limit of processor time for one input
WAIT = 1800  # seconds without any progress after which a worker counts as blocked; only a deadlock waits that long
LOG = re.compile("[IWE][0-9]{4} |WARNING: All log messages")  # lines that TensorFlow logs
MEMORY = 3 << 29  # bytes of writable memory that the inputs may use


class Worker:
    """Runs inputs of one target in a process, which is started again after it died.

    Args:
        module: Name of the module of the target.
        seconds: Limit of processor time for one input.
    """

    def __init__(self, module: str, seconds: float = SECONDS):
        self.module, self.seconds = module, seconds
        self.process: subprocess.Popen | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._progress_file = pathlib.Path(self._folder.name, "progress")
        self._progress_file.write_bytes(bytes(PROGRESS.size))
        with open(self._progress_file, "r+b") as file:
            self._progress = mmap.mmap(file.fileno(), PROGRESS.size)
        self._buffer = b""
        self.calls = 0  # inputs since the process started
        self.resident = self.first_resident = 0  # bytes of memory of the process, now and after its first request

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """Ends the process. The next input starts another one."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.kill()
            self.process.wait()
            os.close(self._replies)
            self._errors.close()
            self.process = None

    def forget_memory(self) -> None:
        """Lets the growth of memory count from the next request."""
        self.calls = self.first_resident = 0

    def run(self, request: dict) -> dict:
        """Runs the inputs of a request.

        Args:
            request: Either `{"inputs": [...]}`, or `{"mode", "seed", "first", "count"}` for inputs that the worker
                draws.

        Returns:
            `{"accepted", "refused", "skipped", "failures", "next"}`. A failure is `{"input", "kind", "text"}`. If the
            worker died, `next` is the index of the first input that has not run.
        """
        if self.process is None:
            self._start()
        first = request.get("first", 0)
        count = request["count"] if "count" in request else len(request["inputs"])
        PROGRESS.pack_into(self._progress, 0, first, 0, 0, 0)
        result = {"failures": [], "next": first + count}
        self._send(request)
        while True:
            reply = self._reply()
            if reply is None:
                index, *counts = PROGRESS.unpack_from(self._progress)
                result.update(zip(("accepted", "refused", "skipped"), counts), next=index + 1)
                death = self._death()
                value = request["inputs"][index - first] if "inputs" in request else self._draw(request, index)
                result["failures"].append({"input": value, **death})
                return result
            if reply.pop("done", False):
                self.calls += count
                self.resident = reply.pop("resident")
                self.first_resident = self.first_resident or self.resident
                return result | reply
            result["failures"].append(reply)

    def _send(self, request: dict) -> None:
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def _draw(self, request: dict, index: int) -> dict:
        """Returns the input with a number, which a new process draws."""
        self._start()
        self._send({"mode": request["mode"], "seed": request["seed"], "draw": index})
        return self._reply()["input"]

    def _start(self) -> None:
        self._replies, theirs = os.pipe()
        self._errors = open(pathlib.Path(self._folder.name, "errors"), "w+b")  # noqa: SIM115  closed with the process
        arguments = ["--replies", str(theirs), "--progress", str(self._progress_file)]
        arguments += ["--seconds", str(self.seconds), "--memory", str(MEMORY)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        environment["TMPDIR"] = self._folder.name
        # With oneDNN, TensorFlow's allocator waits 10 seconds for memory that is not there, and keeps what was freed.
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", self.module, *arguments],
            stdin=subprocess.PIPE,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[theirs],
            env=environment,
            cwd=ROOT,
        )
        os.close(theirs)
        self._buffer, self.calls, self.resident, self.first_resident = b"", 0, 0, 0
        if self._reply() is None:
            raise RuntimeError(f"The worker of {self.module} did not start: {self._death()['text']}")

    def _reply(self) -> dict | None:
        """Returns the next reply, or None if the worker died. Ends a worker that makes no progress."""
        while b"\n" not in self._buffer:
            before = bytes(self._progress)
            if not select.select([self._replies], [], [], WAIT)[0]:
                if bytes(self._progress) == before:
                    self.process.send_signal(signal.SIGPROF)
                continue
            data = os.read(self._replies, 1 << 16)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _death(self) -> dict:
        """Returns kind and text of the failure that ended the worker."""
        code = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        said = "\n".join(line for line in lines if not LOG.match(line))
        said = said.partition("Extension modules:")[0]  # `faulthandler` lists them after the calls
        self.stop()
        if code == -signal.SIGPROF:
            return {"kind": "hang", "text": f"no result after {self.seconds} s of processor time\n{said[-3000:]}"}
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return {"kind": "crash", "text": f"{name}\n{said[-3000:]}"}
