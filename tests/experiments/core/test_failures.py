# SPDX-License-Identifier: Apache-2.0
"""Scripts that end with one sentence: diverged trainings, full disks, lost workers. The last state stays."""

import errno
import os

import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint, failures, files
from tests.support import toy_experiment
from tests.support.toy_processes import failed, finish, toy_process

AGAIN = "The same command with --resume"
ARGUMENTS = ["--iterations", "6", "--checkpoint-every", "2"]


def run_toy(out, *arguments):
    with failures.one_sentence(AGAIN):
        toy_experiment.main([*ARGUMENTS, "--no-deterministic", "--out", str(out), *arguments])


def same_content(path, other):
    (arrays, notes), (others, other_notes) = checkpoint.load(path), checkpoint.load(other)
    assert notes["position"] == other_notes["position"]
    return all(value.tobytes() == expected.tobytes() for value, expected in zip(arrays, others, strict=True))


def test_diverged_training_keeps_results_and_resumes(tmp_path, monkeypatch):
    run_toy(tmp_path / "whole")
    results = tmp_path / "parts" / "results.json"
    results.parent.mkdir()
    results.write_text("of an earlier run")
    monkeypatch.setenv("TOY_NAN_AT", "5")
    with pytest.raises(SystemExit, match=r"^toy diverged: the loss is not finite at step 5 of 6\. .* after step 4; "):
        run_toy(tmp_path / "parts")
    assert results.read_text() == "of an earlier run"
    monkeypatch.delenv("TOY_NAN_AT")
    run_toy(tmp_path / "parts", "--resume")
    assert same_content(tmp_path / "parts" / "toy.checkpoint", tmp_path / "whole" / "toy.checkpoint")


def test_full_disk_keeps_the_last_state(tmp_path, monkeypatch):
    state, written = tmp_path / "toy.checkpoint", []

    def fsync(file):
        written.append(file)
        if len(written) == 3:  # the second state; the first file is `settings.json`
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    message = (
        rf"^Expected {state} to be a file that can be written\. Received: No space left on device\. "
        rf"Complete files stay\. {AGAIN} continues"
    )
    with pytest.raises(SystemExit, match=message):
        run_toy(tmp_path)
    assert checkpoint.load(state)[1]["position"] == 2 and not [*tmp_path.glob("*.part*")]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step:3", "write:2"])
def test_refused_writes_end_the_process_and_keep_the_last_state(tmp_path, moment):
    """The operating system refuses to write, first of all the log of TensorBoard or the state."""
    finish(toy_process(tmp_path / "whole", *ARGUMENTS))
    line = failed(toy_process(tmp_path / "full", *ARGUMENTS, TOY_FULL_AT=moment))
    assert "Received: File too large" in line and f"{AGAIN} continues after the last checkpoint" in line
    state = tmp_path / "full" / "toy.checkpoint"
    assert checkpoint.load(state)[1]["position"] == 2 and not [*state.parent.glob("*.part*")]
    finish(toy_process(tmp_path / "full", *ARGUMENTS, "--resume"))
    assert same_content(state, tmp_path / "whole" / "toy.checkpoint")


@pytest.mark.parametrize("library", [tf.errors.UnknownError, tf.errors.ResourceExhaustedError, RuntimeError])
def test_full_disk_is_recognized_in_errors_of_libraries(library):
    text = f"cannot write: {os.strerror(errno.ENOSPC)}"
    error = RuntimeError(text) if library is RuntimeError else library(None, None, text)
    message = r"Expected room for all files on the disk\. Received: No space left on device\. Complete files stay\."
    with pytest.raises(SystemExit, match=message), failures.one_sentence(AGAIN):
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("of a library") from cause


def test_other_errors_keep_their_traceback():
    for error in (ValueError("of Keras"), OSError(errno.ENOENT, "no such file"), RuntimeError("of TensorFlow")):
        with pytest.raises(type(error)), failures.one_sentence(AGAIN):
            raise error
