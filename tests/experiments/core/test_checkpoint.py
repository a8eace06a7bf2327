# SPDX-License-Identifier: Apache-2.0
"""Files of checkpoints: complete at any moment, and refused if they belong to another model."""

import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint
from tests.support.paths import ROOT

# Writes a state of ones, then a state of twos, and is killed after some bytes of the second state; -1: at the end.
WRITER = """
import io, os, signal, sys
import numpy as np
from examples.experiments.core import checkpoint

path, limit = sys.argv[1], int(sys.argv[2])

class File(io.FileIO):
    def write(self, data):
        if self.tell() + len(data) > limit >= 0:
            super().write(memoryview(data)[:max(0, limit - self.tell())])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(data)

def state(number):
    return [np.full((30, 1000), number), np.array(number)], {"number": number}

checkpoint.save(path, *state(1))
checkpoint.open = lambda file, mode: File(file, mode)
checkpoint.save(path, *state(2))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("written", [0, 1, 1_000, 100_000, "all but one", "all", -1])
def test_kill_while_writing_leaves_a_whole_file(tmp_path, written):
    path, part = tmp_path / "state", tmp_path / "state.part"
    if isinstance(written, str):
        checkpoint.save(path, [np.full((30, 1000), 2), np.array(2)], {"number": 2})
        complete = path.stat().st_size
        written = complete - 1 if written == "all but one" else complete
    arguments = [sys.executable, "-c", WRITER, str(path), str(written)]
    process = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.returncode == -signal.SIGKILL
    (large, small), notes = checkpoint.load(path)
    whole = written == -1 or not part.exists()
    assert small == notes["number"] == (2 if whole else 1) and np.all(large == small)
    assert whole or part.stat().st_size <= written


def test_state_of_another_model_is_an_error(tmp_path):
    variables = [tf.Variable(tf.zeros([3, 2])), tf.Variable(0.0)]
    for arrays, message in {
        (2, 3): r"Received: 2, the first difference is \(3, 2\) to \(2, 3\)",
        (3, 2): r"Expected state to hold the 2 variables .* Received: 1, the first difference is 2 to 1",
    }.items():
        values = [np.ones(arrays), np.ones(())][: 2 if arrays == (2, 3) else 1]
        with pytest.raises(checkpoint.SetupError, match=message):
            checkpoint.restore(variables, values, "state")
    assert np.all(variables[0].numpy() == 0)  # nothing is restored in part


def test_files_of_earlier_runs_are_kept(tmp_path, capsys):
    path = tmp_path / "toy.checkpoint"
    for content in (b"first", b"second", b"third"):
        path.write_bytes(content)
        checkpoint.set_aside(path)
    assert f"{path}: belongs to an earlier run, renamed to toy.checkpoint.previous.3." in capsys.readouterr().out
    kept = [(tmp_path / f"toy.checkpoint.previous{end}").read_bytes() for end in ("", ".2", ".3")]
    assert kept == [b"first", b"second", b"third"] and not path.exists()


def test_states_of_networks_in_bfloat16(tmp_path):
    """A file of NumPy arrays cannot store bfloat16."""
    variables = [tf.Variable([0.1, -3.0], dtype=tf.bfloat16), keras.Variable([0.1, 2.0], dtype="bfloat16")]
    before = [np.asarray(variable) for variable in variables]
    checkpoint.save(tmp_path / "state", before, {})
    for variable in variables:
        variable.assign([0.0, 0.0])
    checkpoint.restore(variables, checkpoint.load(tmp_path / "state")[0], tmp_path / "state")
    for variable, expected in zip(variables, before):
        assert np.asarray(variable).tobytes() == expected.tobytes()
