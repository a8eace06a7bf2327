# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile model files end in one sentence and an exit status."""

import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_dynfilter import models
from tests.export.test_cli import command
from tests.support.paths import ROOT

pytestmark = pytest.mark.legacy
NEEDS_KERAS_3 = pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 reads such files otherwise")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "model.keras"
    image = keras.Input((4, 4, 2), name="image")
    keras.Model(image, keras.layers.Conv2D(3, 3, name="edges")(image)).save(path)
    return path


@pytest.fixture
def failure(capsys):
    """Runs the command, which must fail with one error. Returns the text of the error."""

    def run(*arguments, status=1):
        assert command(*arguments) == status
        error = capsys.readouterr().err
        assert "error: " in error and "Traceback" not in error
        return error

    return run


def changed(saved, path, **members):
    """Copies a .keras file with other members. None removes a member."""
    with zipfile.ZipFile(saved) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("__", "."): value for name, value in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            if value is not None:
                archive.writestr(name, value)
    return path


def config(saved):
    with zipfile.ZipFile(saved) as archive:
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"config": ', "}")])
def test_deeply_nested_configuration(opening, closing, saved, failure, tmp_path):
    text = opening * 100_000 + "1" + closing * 100_000
    path = changed(saved, tmp_path / "m.keras", config__json=text)
    assert "its configuration is nested too deeply" in failure(path)


def test_huge_configuration(saved, failure, tmp_path):
    path = changed(saved, tmp_path / "m.keras", config__json=b" " * 100_000_000)
    assert path.stat().st_size < 1_000_000
    assert "Expected config.json to have at most 67.1 MB. Received: 100 MB" in failure(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[1]["config"].update(filters=10**30),
        lambda layers: layers[1]["config"].update(filters=-1),
        lambda layers: layers[1]["config"].update(filters=None),
        lambda layers: layers[1]["config"].update(kernel_size=[10**9, 10**9]),
        lambda layers: layers[1]["config"].update(strides="x"),
        lambda layers: layers[0]["config"].update(batch_shape=[None, -4, 4, 2]),
        lambda layers: layers[1].update(class_name="Nothing"),
        lambda layers: layers[1].pop("config"),
        lambda layers: layers[1].update(inbound_nodes=[]),
        lambda layers: layers.clear(),
        pytest.param(lambda layers: layers.append(layers[1]), marks=NEEDS_KERAS_3),  # Keras 2 reads it
    ],
)
def test_wrong_configurations(change, saved, failure, tmp_path):
    content = config(saved)
    change(content["config"]["layers"])
    failure(changed(saved, tmp_path / "m.keras", config__json=json.dumps(content)))


def test_archives_that_reach_other_files(saved, failure, tmp_path):
    path = changed(saved, tmp_path / "m.keras", **{"../outside": b"content"})
    assert "'../outside', a name that leaves the archive" in failure(path)
    file = io.BytesIO()
    with h5py.File(file, "w") as weights:
        weights["layers"] = h5py.ExternalLink("/etc/other.h5", "/")
    path = changed(saved, tmp_path / "m.keras", model__weights__h5=file.getvalue())
    assert "'layers', a link (ExternalLink)" in failure(path)


@pytest.mark.parametrize("weights", [None, b"", b"text"])
def test_missing_and_damaged_weights(weights, saved, failure, tmp_path):
    failure(changed(saved, tmp_path / "m.keras", model__weights__h5=weights))


def test_weights_of_another_shape(saved, failure, tmp_path):
    image = keras.Input((4, 4, 2))
    keras.Model(image, keras.layers.Conv2D(4, 3, name="edges")(image)).save(tmp_path / "other.keras")
    with zipfile.ZipFile(tmp_path / "other.keras") as archive:
        weights = archive.read("model.weights.h5")
    failure(changed(saved, tmp_path / "m.keras", model__weights__h5=weights))


def test_every_part_of_a_file_can_be_damaged(saved, failure, tmp_path):
    content = saved.read_bytes()
    for part in range(20):
        place = part * len(content) // 20
        (tmp_path / "m.keras").write_bytes(content[:place] + b"\xff" * 16 + content[place + 16 :])
        command(tmp_path / "m.keras", "--no-validate")  # padding may be damaged without an effect
        (tmp_path / "m.keras").write_bytes(content[:place])
        failure(tmp_path / "m.keras", "--no-validate")


def test_paths_that_are_no_models(saved, failure, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    assert "Expected a folder with saved_model.pb" in failure(tmp_path / "folder.keras", status=2)
    os.mkfifo(tmp_path / "pipe.keras")
    assert "Expected a .keras file or a SavedModel folder" in failure(tmp_path / "pipe.keras", status=2)
    os.symlink(tmp_path / "loop.keras", tmp_path / "loop.keras")
    failure(tmp_path / "loop.keras", status=2)
    failure(tmp_path / ("x" * 300 + ".keras"), status=2)
    (tmp_path / "m" / "variables").mkdir(parents=True)
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"")
    os.mkfifo(tmp_path / "m" / "variables" / "variables.index")  # TensorFlow would wait for a writer
    assert "Received: no regular file" in failure(tmp_path / "m", status=2)


# Networks of the package


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "steerable.weights.h5"
    models.dfn_steerable(kernel_size=3, image_shape=(8, 8, 1)).save_weights(path)
    return path


@pytest.mark.parametrize(
    "option",
    [
        "kernel_size=10**9",
        "kernel_size=1e9",
        "kernel_size=1000000001",
        "kernel_size=" + "(" * 5000,
        "kernel_size=[]",
        "image_shape=(10**20, 8, 1)",
        "image_shape=(8, 8)",
        "image_shape=None",
        pytest.param("name=/", marks=NEEDS_KERAS_3),  # Keras 2 refuses it later, as another kind of error
        "=3",
        "kernel_size=",
    ],
)
def test_wrong_options(option, weights, failure):
    failure("--model", "dfn_steerable", "--weights", weights, "--set", option, status=2)


def test_weights_that_are_no_weights(weights, failure, tmp_path):
    network = ("--model", "dfn_steerable", "--weights")
    for name in ("m.keras", "m.weights.json", "m.npz", "m"):
        (tmp_path / name).write_bytes(weights.read_bytes())
        assert "Expected --weights to be an .h5 file" in failure(*network, tmp_path / name, status=2)
    (tmp_path / "folder.h5").mkdir()
    assert "No such file" in failure(*network, tmp_path / "folder.h5", status=2)
    content = weights.read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    assert "does not hold weights of dfn_steerable" in failure(*network, tmp_path / "cut.weights.h5")
    with h5py.File(tmp_path / "huge.weights.h5", "w") as file:
        file.create_dataset("layers/vars/0", (2**40,), "f4", chunks=(1024,))
    assert "to need at most" in failure(*network, tmp_path / "huge.weights.h5")


# Files that the command writes and reads


def test_reports(saved, failure, monkeypatch, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.write_text("")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(locked) and access(path, mode))
    assert "--report to be a file that can be written" in failure(saved, "--report", locked, status=2)
    assert "to be another file than the inputs" in failure(saved, "--report", saved, status=2)
    (tmp_path / "link.json").hardlink_to(saved)
    assert "to be another file than the inputs" in failure(saved, "--report", tmp_path / "link.json", status=2)
    out = ("--out", tmp_path / "m", "--no-validate")
    assert "--report to be outside of --out" in failure(saved, *out, "--report", tmp_path / "m", status=2)
    assert command(saved, *out) == 0
    assert "--report to be outside of --out" in failure(saved, *out, "--report", tmp_path / "m" / "r", status=2)
    error = failure(saved, *out, "--report", "/dev/full")
    assert "was exported, but --report /dev/full cannot be written" in error


def test_a_folder_with_other_files_is_not_replaced(saved, failure, tmp_path):
    out = ("--out", tmp_path / "m", "--no-validate")
    assert command(saved, *out) == 0 and command(saved, *out) == 0
    (tmp_path / "m" / "notes.txt").write_text("important")
    assert "which also holds notes.txt" in failure(saved, *out, status=2)
    assert (tmp_path / "m" / "notes.txt").read_text() == "important"


def test_a_saved_model_does_not_replace_itself(saved, failure, tmp_path):
    assert command(saved, "--out", tmp_path / "m", "--no-validate") == 0
    assert "Expected --out to be another file than the inputs" in failure(
        tmp_path / "m", "--out", tmp_path / "m", "--no-validate", status=2
    )


def test_representative_data(saved, failure, tmp_path):
    pytest.importorskip("ai_edge_litert")
    options = (saved, "--format", "litert", "--precision", "int8", "--no-validate", "--representative-data")
    assert "to be an .npz file of arrays" in failure(*options, saved, status=2)
    os.mkfifo(tmp_path / "pipe.npz")
    assert "no regular file" in failure(*options, tmp_path / "pipe.npz", status=2)
    for arrays, text in (
        ({"image": np.full((2, 4, 4, 2), np.nan, "float32")}, "32 NaN or infinite values of image in sample 0"),
        ({"image": np.array([{}, {}], object)}, "Python objects"),
        ({"image": np.array(["a", "b"])}, "image"),
        ({"image": np.zeros((2, 4, 4, 3), "float32")}, "to have shape"),
        ({"other": np.zeros((2, 4, 4, 2), "float32")}, "'other'"),
    ):
        np.savez(tmp_path / "data.npz", **arrays)
        assert text in failure(*options, tmp_path / "data.npz", status=2)


@pytest.mark.slow
def test_output_that_is_full(saved, tmp_path):
    """The file is exported, although nothing can be printed."""
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "keras_dynfilter.export", str(saved), "--no-validate", "--out"]
        completed = subprocess.run(
            [*arguments, str(tmp_path / "m")], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert completed.returncode == 0 and "Traceback" not in completed.stderr, completed.stderr
    assert (tmp_path / "m" / "saved_model.pb").is_file()
