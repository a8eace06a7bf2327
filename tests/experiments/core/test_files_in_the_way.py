# SPDX-License-Identifier: Apache-2.0
"""Something else in the place of a file or a folder that a run writes: one sentence, and complete files stay."""

import json
import os
import shutil
import types

import keras
import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint, exports, failures, files, run, sweep, tensorboard
from keras_dynfilter import export
from tests.support import toy_experiment
from tests.support.toy_options import parsed

AGAIN = "The same command with --resume"


def run_toy(out, *arguments):
    fixed = ["--iterations", "4", "--checkpoint-every", "2", "--no-deterministic"]
    with failures.one_sentence(AGAIN):
        toy_experiment.main([*fixed, "--out", str(out), *arguments])


@pytest.mark.parametrize("place", ["logs", "logs/toy", "logs/toy/train"])
def test_a_file_in_the_place_of_a_folder_of_logs(place, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    message = (
        rf"^Expected {tmp_path}/logs/toy to be a folder that can be written\. Received: (Not a directory|File exists)"
    )
    with pytest.raises(SystemExit, match=rf"{message}\. Complete files stay\. {AGAIN} continues"):
        run_toy(tmp_path)
    (tmp_path / place).unlink()
    run_toy(tmp_path, "--resume")


@pytest.mark.parametrize("replaced", [True, False])
def test_logs_that_disappear_do_not_stop_the_training(replaced, tmp_path, monkeypatch):
    """The metrics are in the results, too."""

    def remove(self, epoch, logs=None, on_epoch_end=tensorboard.TensorBoard.on_epoch_end):
        if epoch == 1:
            shutil.rmtree(tmp_path / "logs")
            if replaced:
                (tmp_path / "logs").touch()
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(tensorboard.TensorBoard, "on_epoch_end", remove)
    run_toy(tmp_path)
    history = json.loads((tmp_path / "results.json").read_text())["training"]["history"]
    assert [epoch["step"] for epoch in history] == [2, 4]


@pytest.mark.parametrize("error", [tf.errors.FailedPreconditionError, tf.errors.NotFoundError, PermissionError])
def test_a_refusal_of_the_logs_keeps_the_state_of_the_epoch(error, tmp_path, monkeypatch):
    def refuse(*_):
        raise error(13, "no") if error is PermissionError else error(None, None, "{{node x}} no [Op:Write] name:")

    monkeypatch.setattr(keras.callbacks.TensorBoard, "on_epoch_end", refuse)
    message = rf"^Expected {tmp_path}/logs/toy to be a folder that can be written\. Received: no\. Complete files stay"
    with pytest.raises(SystemExit, match=message):
        run_toy(tmp_path)
    assert checkpoint.load(tmp_path / "toy.checkpoint")[1]["position"] == 2


@pytest.mark.parametrize("name", ["toy.keras", "results.json", "toy.checkpoint.part"])
def test_a_folder_in_the_place_of_a_file(name, tmp_path):
    (tmp_path / name).mkdir(parents=True)
    path = tmp_path / name.removesuffix(".part")
    message = rf"Expected {path} to be a file that can be written\. Received: Is a directory\. Complete files stay"
    with pytest.raises(SystemExit, match=message):
        run_toy(tmp_path)
    (tmp_path / name).rmdir()
    run_toy(tmp_path, "--resume")


def test_a_pipe_in_the_place_of_a_temporary_file_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "file.part")
    files.write_text(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content" and [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_a_pipe_in_the_place_of_a_log_of_a_process_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "process_1.log")
    with files.new_log(tmp_path / "process_1.log") as file:
        file.write("text")
    assert (tmp_path / "process_1.log").read_text() == "text"


def test_a_figure_is_written_whole(tmp_path):
    class Figure:
        def savefig(self, path, dpi):
            path.write_text("half")
            raise MemoryError

    (tmp_path / "a.png").write_text("of an earlier run")
    with pytest.raises(MemoryError):
        run.save_figures(types.SimpleNamespace(out=tmp_path), {"a.png": Figure()})
    assert (tmp_path / "a.png").read_text() == "of an earlier run" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("place", ["", "runs", "settings.lock"])
def test_files_in_the_way_of_a_sweep(place, tmp_path):
    out = tmp_path / "out"
    if place == "settings.lock":
        (out / place).mkdir(parents=True)
    else:
        (out / place).parent.mkdir(exist_ok=True)
        (out / place).touch()
    args = types.SimpleNamespace(out=out, only=["a"], seeds=[0], processes=1)
    with pytest.raises(SystemExit, match=f"{out / place}") as stop:
        sweep.main(args, [], "module", None, None, None)
    text = str(stop.value)
    assert "that can be written. Received: " in text and len(text.splitlines()) == 1


def test_exports_that_cannot_be_written_end_the_run_before_the_training(tmp_path):
    (tmp_path / "toy.onnx").mkdir()
    (tmp_path / "toy_saved_model").mkdir()
    (tmp_path / "toy_saved_model" / "thesis.txt").touch()
    for kind, message in (("onnx", "to be a file"), ("saved_model", "to be a new folder or a SavedModel to replace")):
        with pytest.raises(SystemExit, match=rf"--export {kind}: Expected `path` {message}.*{tmp_path}/toy"):
            run_toy(tmp_path, "--export", kind)
        assert not (tmp_path / "toy.checkpoint").exists()
        with pytest.raises(checkpoint.SetupError, match=f"--export {kind}"):
            exports.check_export_paths(parsed("--out", str(tmp_path), "--export", kind), ["toy"])


def test_exports_that_fail_end_the_run_with_a_sentence(tmp_path, monkeypatch):
    args = parsed("--out", str(tmp_path), "--export", "onnx")
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for error, message in (
        (export.ExportError("The model holds other ops."), rf"^The model holds other ops\. {AGAIN} exports again"),
        (PermissionError(13, "Permission denied"), rf"^Expected {tmp_path}/toy\.onnx to be .* Permission denied"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(exports.export, "export", fail)
        with pytest.raises(SystemExit, match=message), failures.one_sentence(AGAIN):
            exports.write_exports(args, "toy", network)
