# SPDX-License-Identifier: Apache-2.0
"""Trainings on several devices and workers: equal losses, one writer, clear errors if a worker ends or differs."""

import contextlib
import json
import signal
import time

import numpy as np
import pytest

from examples.experiments.core import checkpoint, distribution
from tests.support.toy_processes import cluster, failed, finish, start, toy_process

WORKERS = ["--strategy", "multi-worker"]


@pytest.fixture
def start_workers():
    """Returns a function that starts the toy experiment on the two workers of a cluster.

    `folders` are the values of `--out`; `of_second` are environment variables of the second worker.
    """
    with contextlib.ExitStack() as reserved:

        def start_both(*folders, arguments=(), of_second=None):
            first, second = reserved.enter_context(cluster(2))
            environments = (first, {**second, **(of_second or {})})
            return [
                toy_process(out, *WORKERS, *arguments, **environment)
                for out, environment in zip((*folders, *folders), environments)
            ]

        yield start_both


def assert_same_training(path, reference, position):
    """Floating-point sums over the batch have another order, and the difference grows with the steps."""
    (arrays, notes), (others, other_notes) = checkpoint.load(path), checkpoint.load(reference)
    assert notes["position"] == other_notes["position"] == position
    losses, expected = ([entry["loss"] for entry in history["history"]] for history in (notes, other_notes))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for value, other in zip(arrays, others, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_strategies_train_the_same(tmp_path, start_workers):
    assert "loss" in finish(toy_process(tmp_path / "one"))
    finish(toy_process(tmp_path / "mirrored", "--devices", "2", "--strategy", "mirrored"))
    chief, other = map(finish, start_workers(tmp_path / "workers"))
    assert "loss" in chief and "loss" not in other  # only the chief writes
    for name in ("mirrored", "workers"):
        assert_same_training(tmp_path / name / "toy.checkpoint", tmp_path / "one" / "toy.checkpoint", 20)
        assert json.loads((tmp_path / name / "results.json").read_text())["training"]["iterations"] == 20


@pytest.mark.slow
def test_killed_worker_ends_the_other_and_a_restart_resumes(tmp_path, start_workers):
    finish(toy_process(tmp_path / "one"))
    first, second = start_workers(tmp_path / "workers", of_second={"TOY_KILL_AT": "step:7"})
    second.communicate()
    assert second.returncode == -signal.SIGKILL
    assert failed(first).startswith("Another worker has ended, or cannot be reached")
    state = tmp_path / "workers" / "toy.checkpoint"
    assert checkpoint.load(state)[1]["position"] == 5
    chief, _ = map(finish, start_workers(tmp_path / "workers", arguments=["--resume"]))
    assert "continues after step 5 of 20" in chief
    assert_same_training(state, tmp_path / "one" / "toy.checkpoint", 20)


@pytest.mark.slow
def test_sigterm_ends_workers(tmp_path, start_workers):
    """TensorFlow would catch it, and the training would go on."""
    workers = start_workers(tmp_path, arguments=["--iterations", "1000000"])
    state = tmp_path / "toy.checkpoint"
    while not state.exists():  # both train
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        worker.communicate()
    assert [worker.returncode for worker in workers] == [-signal.SIGTERM] * 2
    assert checkpoint.load(state)[1]["position"] % 5 == 0


@pytest.mark.slow
def test_worker_that_diverges_stops_all_workers_at_one_step(tmp_path, start_workers):
    """The data of the second worker, which has the second half of each batch, are NaN."""
    for worker in start_workers(tmp_path, of_second={"TOY_NAN_AT": "7"}):
        assert "toy diverged: the loss is not finite at step 7 of 20." in failed(worker)
    assert checkpoint.load(tmp_path / "toy.checkpoint")[1]["position"] == 5


@pytest.mark.slow
def test_workers_need_the_same_state(tmp_path, start_workers):
    """The second worker has another folder, without a state."""
    for worker in start_workers(tmp_path / "shared"):
        finish(worker)
    for worker in start_workers(tmp_path / "shared", tmp_path / "other", arguments=["--resume"]):
        assert "Expected all workers to read the same state" in failed(worker)


@pytest.mark.slow
def test_moving_mnist_on_two_workers_trains_like_on_one(tmp_path):
    command = ["-m", "examples.experiments.dfn.moving_mnist", "--smoke", "--digits", "rendered"]
    finish(start(*command, "--out", str(tmp_path / "one")))
    with cluster(2) as environments:
        workers = [start(*command, *WORKERS, "--out", str(tmp_path / "two"), **each) for each in environments]
        for worker in workers:
            finish(worker)
    assert_same_training(tmp_path / "two" / "dfn.checkpoint", tmp_path / "one" / "dfn.checkpoint", 12)


def test_multi_worker_needs_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"Expected the variable TF_CONFIG to describe .* Received: TF_CONFIG=None"):
        distribution.make_strategy("multi-worker")
