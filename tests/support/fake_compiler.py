# SPDX-License-Identifier: Apache-2.0
"""Writes small scripts that take the place of a C++ compiler, and starts builds that use them.

The builds run the builder alone, without TensorFlow and without the package, as `setup.py` does.
"""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

from keras_dynfilter.custom_ops import units
from tests.support.paths import ROOT

# What the script writes passes for any object and any library.
CONTENT = r"\177ELF " + " ".join(units.SYMBOLS.values())
SCRIPT = r"""#!/bin/sh
for argument; do
  if [ "$argument" = -dumpmachine ]; then echo "{machine}"; exit 0; fi
  [ "$previous" = -o ] && output=$argument
  [ "$previous" = -c ] && source=$argument
  previous=$argument
done
if [ "$2" = "" ] && [ "$1" = --version ]; then echo "fake compiler 1"; exit 0; fi
if [ -z "$output" ]; then echo "object.o: source.cc {headers}"; exit 0; fi  # a query of the included files
echo "${{source:-link}}" >> "{calls}"
{behaviour}
printf '{content}' > "$output"
"""
BUILD = """
import os, pathlib, signal, sys
# A test run in the background, or under nohup, ignores these signals, and its children inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
from custom_ops import build, units
tensorflow = units.TensorFlow(sys.argv[3], "", "/include", "/lib", ())
def progress(text):
    print(text, file=sys.stderr, flush=True)
libraries = build.build(tensorflow, sys.argv[2], progress)
assert "tensorflow" not in sys.modules and "keras_dynfilter" not in sys.modules
print(libraries.ops)
"""
VERSION = "2.15.1"  # of a TensorFlow without XLA


class FakeCompiler:
    """A script that takes the place of the compiler.

    Args:
        folder: The folder of the script, of its records and of the cache.
        headers: The headers that all sources include, for a query of them.
        machine: The machine for which the script says that it compiles, such as `aarch64-linux-gnu`.
    """

    def __init__(self, folder: pathlib.Path, headers: Sequence[str | pathlib.Path] = (), machine: str = ""):
        self.folder, self.cache, self.headers = folder, folder / "cache", " ".join(map(str, headers))
        self.machine = machine
        self.path, self._calls = folder / "compiler", folder / "calls"
        self.behave("")

    def behave(self, behaviour: str) -> None:
        """Replaces what the script does, in shell commands, before it writes `$output`."""
        names = dict(machine=self.machine, calls=self._calls, behaviour=behaviour, content=CONTENT)
        self.path.write_text(SCRIPT.format(**names, headers=self.headers))
        self.path.chmod(0o755)

    def calls(self) -> list[str]:
        """Returns the sources that the script was asked to compile, and `"link"` for each library."""
        return self._calls.read_text().split() if self._calls.exists() else []

    def forget_calls(self) -> None:
        self._calls.unlink(missing_ok=True)

    def start(self, version: str = VERSION, **variables: str) -> subprocess.Popen:
        """Starts a build in a process group of its own."""
        return self.start_code(BUILD, version, **variables)

    def start_code(self, code: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """Starts Python with some code, whose arguments are the checkout, the cache and further ones."""
        environment = {**os.environ, "CXX": str(self.path), "KERAS_DYNFILTER_CUDA": "0", **variables}
        environment.pop("PYTHONPATH", None)
        return subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT), str(self.cache), *arguments],
            env=environment,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, version: str = VERSION, **variables: str) -> subprocess.CompletedProcess:
        """Runs a build. Returns the completed process, whose output is the path of the library of ops."""
        return self.run_code(BUILD, version, **variables)

    def run_code(self, code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Runs `start_code` until it ends."""
        process = self.start_code(code, *arguments, **variables)
        output, errors = process.communicate(timeout=3600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def library(self, version: str = VERSION) -> pathlib.Path:
        """Builds the library of ops. Returns its path."""
        done = self.build(version)
        assert done.returncode == 0, done.stderr
        return pathlib.Path(done.stdout.strip())

    def files(self, pattern: str) -> list[pathlib.Path]:
        """Returns the files in the cache whose names match a pattern."""
        return sorted(self.cache.rglob(pattern))


def wait_for(condition, process: subprocess.Popen) -> None:
    """Waits until a condition is true, or fails if the process ends before."""
    while not condition():
        ended = process.poll() is not None
        if ended and not condition():
            raise AssertionError(process.communicate()[1])
        time.sleep(0.01)
