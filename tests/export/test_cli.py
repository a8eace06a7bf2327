# SPDX-License-Identifier: Apache-2.0
"""Tests of the command line `keras-dynfilter-export`: output, exit status and messages."""

import json
import zipfile

import keras
import pytest

from keras_dynfilter import export, layers
from keras_dynfilter.export import cli
from keras_dynfilter.export.writers import onnx as onnx_writer
from keras_dynfilter.models import dfn_moving_mnist
from tests.support import export_models as models

pytestmark = pytest.mark.legacy


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves a model of layers of Keras and of this package, which loads without an import by the user."""
    path = tmp_path_factory.mktemp("cli") / "model.keras"
    image = keras.Input((None, None, 2), name="image")
    generator = keras.layers.Conv2D(9, 3, padding="same")
    keras.Model(image, layers.DynamicLocalFilter2D(3, padding="same", generator=generator)(image)).save(path)
    return path


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")


def command(*arguments):
    """Runs the command line in this process. Returns its exit status."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def test_in_a_separate_process(onnx, python, saved, tmp_path):
    out, report = tmp_path / "m.onnx", tmp_path / "report.json"
    module = ("-m", "keras_dynfilter.export", str(saved), "--out", str(out), "--format")
    completed = python(*module, "onnx", "--opset", "17", "--report", str(report))
    assert completed.returncode == 0, completed.stderr
    assert "validated   passed" in completed.stdout and out.is_file()
    assert json.loads(report.read_text())["opset"] == 17
    completed = python(*module, "onnix")
    assert (
        completed.returncode == 2 and "Did you mean 'onnx'?" in completed.stderr and "Traceback" not in completed.stderr
    )


def test_networks_of_the_package_load_without_an_import(python, tmp_path):
    path = tmp_path / "network.keras"
    dfn_moving_mnist((16, 16, 1), 2, 2, width=0.125).save(path)
    completed = python("-m", "keras_dynfilter.export", str(path), "--no-validate")
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "network" / "saved_model.pb").is_file()


def test_default_output_is_next_to_the_model(saved, capsys):
    assert command(saved, "--no-validate", "--input-size", "16x24") == 0
    assert (saved.with_suffix("") / "saved_model.pb").is_file()
    out = capsys.readouterr().out
    assert "[batch, 16, 24, 2]" in out and "skipped" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ops", "nativ"], "Did you mean 'native'?"),
        (["--no-validat"], "Did you mean '--no-validate'?"),
        (["--input-size", "16"], "argument --input-size: expected HxW"),
        (["--input-size", "0x4"], "argument --input-size: expected HxW"),
        (["--opset", "9"], "Expected --opset to be None: saved_model has no opsets"),
        (["--out", "nowhere.onnx"], "Expected --out to be a folder for saved_model"),
        (["--report", "/no/such/folder/report.json"], "Expected --report to be a file in an existing folder"),
        (["--report", "/"], "Expected --report to be a file in an existing folder. Received: /"),
    ],
)
def test_wrong_usage(arguments, message, saved, capsys):
    assert command(saved, *arguments) == 2
    assert message in capsys.readouterr().err


def test_full_disk(saved, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "export", full)
    assert command(saved) == 1  # not 2, the status of wrong usage
    assert "cannot be written: [Errno 28] No space left on device" in capsys.readouterr().err


def test_wrong_model_files(saved, tmp_path, capsys):
    assert command(tmp_path / "missing.keras") == 2
    assert "No such file" in capsys.readouterr().err
    assert command(tmp_path / "model.h5") == 2
    assert "Expected a .keras file" in capsys.readouterr().err


def _flipped(content):
    """Inverts 64 bytes in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("damage", [lambda _: b"not a model", lambda content: content[:-200], _flipped])
def test_damaged_model_file(damage, saved, tmp_path, capsys):
    (tmp_path / "broken.keras").write_bytes(damage(saved.read_bytes()))
    assert command(tmp_path / "broken.keras") == 1
    error = capsys.readouterr().err
    assert "is not a .keras file, or is damaged" in error and "layers of your own" not in error


@pytest.mark.parametrize("config", ["[]", "{}", "{"])
def test_archive_without_a_model(config, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", config)
    assert command(tmp_path / "other.keras") == 1
    error = capsys.readouterr().err
    assert "cannot be loaded" in error and "layers of your own" not in error


def test_path_that_cannot_be_written(saved, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command(saved, "--out", tmp_path / "file" / "model") == 2
    assert "a folder that can be written" in capsys.readouterr().err


def test_unknown_layer(python, tmp_path):
    models.local_filter().save(tmp_path / "custom.keras")
    completed = python("-m", "keras_dynfilter.export", str(tmp_path / "custom.keras"))
    assert completed.returncode == 1 and "layers of your own are exported from Python" in completed.stderr, (
        completed.stderr
    )
    assert "Traceback" not in completed.stderr


def test_model_that_contains_code(tmp_path, capsys):
    x = keras.Input((3,))
    path = tmp_path / "lambda.keras"
    keras.Model(x, keras.layers.Lambda(lambda v: v * 2.0, output_shape=(3,))(x)).save(path)
    assert command(path, "--no-validate") == 1
    assert "--unsafe" in capsys.readouterr().err
    assert command(path, "--no-validate", "--unsafe") == 0


def test_failed_validation(onnx, saved, monkeypatch, tmp_path, capsys):
    write = onnx_writer.write

    def wrong(traced, path, opset):
        nodes = write(traced, path, opset)
        path.write_bytes(path.read_bytes()[:-50])
        return nodes

    monkeypatch.setattr(onnx_writer, "write", wrong)
    report = tmp_path / "report.json"
    assert command(saved, "--format", "onnx", "--out", tmp_path / "m.onnx", "--report", report) == 1
    assert "FAILED" in capsys.readouterr().err
    assert json.loads(report.read_text())["passed"] is False and not (tmp_path / "m.onnx").exists()


def test_help_holds_the_table(capsys):
    assert command("--help") == 0
    assert export.formats.table() in capsys.readouterr().out
