# SPDX-License-Identifier: Apache-2.0
"""Damaged files of runs: each is read as it was, or refused with one sentence that names the file and a remedy.

Bits of all parts are flipped; the end is lost, and every region; files are swapped, empty, or folders.
"""

import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint, files, sweep, training
from tests.support import toy_experiment

REGIONS = 16
FLIP, CUT = 3, 11  # of so many bytes, one is flipped, and one is the first that is lost


def damages(content):
    """Yields damaged contents, with a description."""
    flips = np.random.default_rng(0).integers(8, size=len(content))
    for place, flip in enumerate(flips):
        yield (
            f"bit {flip} of byte {place}",
            content[:place] + bytes([content[place] ^ 1 << flip]) + content[place + 1 :],
        )
        if place % CUT == 0:
            yield f"cut at {place}", content[:place]
    size = -(-len(content) // REGIONS)
    regions = [content[first : first + size] for first in range(0, len(content), size)]
    for place, region in enumerate(regions):
        before, after = b"".join(regions[:place]), b"".join(regions[place + 1 :])
        yield f"region {place} lost", before + after
        yield f"region {place} zero", before + bytes(len(region)) + after
        yield f"region {place} twice", before + region + region + after
        if before:
            yield f"region {place} first", region + before + after
    yield "more bytes", content + b"more"
    yield "twice", content + content


def check(path, content, read, remedy):
    """Checks that `read` returns what it returns for `content`, or refuses, for every damage. Returns the refusals."""
    path.write_bytes(content)
    expected, refused = read(), 0
    for damage, damaged in damages(content):
        path.write_bytes(damaged)
        try:
            assert read() == expected, damage
        except checkpoint.SetupError as error:
            assert str(path) in f"{error}" and remedy in f"{error}" and "\n" not in f"{error}", damage
            refused += 1
    path.unlink()
    path.mkdir()
    with pytest.raises(checkpoint.SetupError, match=rf"{path} to hold .* Received: a folder\. {remedy}"):
        read()
    return refused


@pytest.fixture(scope="module")
def toy_state(tmp_path_factory):
    """The state of a short training, and the training."""
    folder = tmp_path_factory.mktemp("toy")

    def train(name="toy", settings=None, **arguments):
        data, settings = toy_experiment.batches, settings or {"a": 1}
        compile_model = lambda model: model.compile("sgd", "mse")  # noqa: E731
        return training.train(
            name, toy_experiment.build, compile_model, data, 2, 2, folder, settings=settings, **arguments
        )

    train()
    return folder / "toy.checkpoint", train


def test_state(tmp_path, toy_state):
    original, _ = toy_state
    content, path = original.read_bytes(), tmp_path / "toy.checkpoint"
    variables = [tf.Variable(array) for array in checkpoint.load(original)[0]]

    def read():
        checkpointer = training.Checkpointer("toy", path, variables, settings={"a": 1})
        checkpointer.load(2)
        values = [variable.numpy().tobytes() for variable in variables]
        for variable in variables:
            variable.assign(tf.zeros_like(variable))
        return values, checkpointer.position, checkpointer.history

    assert check(path, content, read, checkpoint.REMEDY) == len([*damages(content)])


def test_state_of_another_training(toy_state):
    """The networks and their states have equal shapes."""
    state, train = toy_state
    content = state.read_bytes()
    train("other")
    other = state.with_name("other.checkpoint").read_bytes()
    state.write_bytes(other)
    with pytest.raises(
        checkpoint.SetupError, match=rf"{state} to hold the state of toy\. Received: the state of other"
    ):
        train(resume=True)
    state.write_bytes(content)
    with pytest.raises(checkpoint.SetupError, match=rf"Expected --a 2, as in {state}\. Received: 1|Expected --a 1"):
        train(settings={"a": 2}, resume=True)
    state.unlink()
    state.mkdir()
    with pytest.raises(checkpoint.SetupError, match=rf"{state} to hold .* Received: a folder"):
        train(resume=True)
    state.rmdir()
    state.write_bytes(content)
    assert train(resume=True).steps == 2


def test_settings(tmp_path):
    path = tmp_path / "settings.json"
    files.write_record(path, {"seed": 0, "rate": 0.1, "stages": [[3, 1]], "data": {"images": "3 x 8, CRC-32 0"}})
    refused = check(path, path.read_bytes(), lambda: checkpoint.read_settings(path), "Delete it")
    assert refused > 100


def test_description_of_a_run(tmp_path):
    args = types.SimpleNamespace(out=tmp_path)
    path = sweep.run_path(args, "a_seed0")
    path.parent.mkdir()
    files.write_record(path, {"variant": "a", "seed": 0, "history": [{"loss": 0.5}], "swapped": None})
    refused = check(path, path.read_bytes(), lambda: sweep.finished_runs(args, ["a_seed0"]), "Delete the file")
    assert refused > 100


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": 1}', "[]", "1" * 5000, "\ud800"])
def test_files_that_are_no_record(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(checkpoint.SetupError, match=rf"Expected {path} to hold the settings of a run"):
        checkpoint.read_settings(path)


def test_network_of_a_run(tmp_path):
    """Keras itself reads this file; it must not end in a traceback."""
    args = types.SimpleNamespace(out=tmp_path)
    path = sweep.run_path(args, "a_seed0", ".keras")
    path.parent.mkdir()
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    content = path.read_bytes()
    for damage in (b"", content[:100], content[:-30], content[:200] + bytes(200) + content[400:], content[::-1]):
        path.write_bytes(damage)
        with pytest.raises(checkpoint.SetupError, match=rf"Expected {path} to hold the network .* Delete it and"):
            sweep.load_network(args, "a_seed0")


@pytest.mark.parametrize(
    "change",
    [
        {"position": "5"},
        {"position": -5},
        {"history": None},
        {"seconds": "1"},
        {"settings": 3},
        {"name": None},
    ],
    ids=str,
)
def test_made_up_notes_with_a_right_checksum(change, tmp_path):
    notes = dict(name="a", position=5, seconds=0.0, processor_seconds=0.0, history=[], settings=None)
    path = tmp_path / "state"
    checkpointer = training.Checkpointer("a", path, [tf.Variable(0.0)])
    checkpoint.save(path, [np.array(2.0)], notes)
    checkpointer.load(10)
    for made_up in ({**notes, **change}, {}, [notes]):
        checkpoint.save(path, [np.array(2.0)], made_up)
        with pytest.raises(checkpoint.SetupError, match=r"Expected the notes in .*state to be those of a training"):
            checkpointer.load(10)
    checkpoint.save(path, [np.array("two")], notes)
    with pytest.raises(checkpoint.SetupError, match=r"to hold arrays of numbers\. Received: <U3"):
        checkpointer.load(10)


def test_pipes_do_not_block_the_readers(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (checkpoint.load, checkpoint.read_settings):
        with pytest.raises(checkpoint.SetupError, match="no regular file"):
            read(tmp_path / "pipe")
