# SPDX-License-Identifier: Apache-2.0
"""The command line exports SavedModels, and networks of the package with their weights."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export, models
from keras_dynfilter.export import networks
from keras_dynfilter.ops.backends import library
from tests.export.test_cli import (
    command,
    onnx,  # noqa: F401  a fixture
)

pytestmark = pytest.mark.legacy

SMALL = {"kernel_size": 3, "image_shape": (8, 8, 1)}
SET = ["--set", "kernel_size=3", "--set", "image_shape=(8, 8, 1)"]


@pytest.fixture(scope="module")
def network():
    return models.dfn_steerable(**SMALL)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "steerable.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module", params=["portable", "native"])
def saved_model(request, network, tmp_path_factory):
    if request.param == "native":
        request.getfixturevalue("native_library")
    path = tmp_path_factory.mktemp("saved") / request.param
    export.export(network, path, ops=request.param, validate=False, verbose=False)
    return path


def sample(network):
    rng = np.random.default_rng(0)
    return {
        value.name.split(":")[0]: rng.standard_normal((2, *value.shape[1:])).astype("float32")
        for value in network.inputs
    }


def test_weights_and_the_name_of_their_network(network, weights, tmp_path, capsys):
    named = ("--model", "dfn_steerable", "--weights", weights, *SET)
    assert command(*named, "--no-validate", "--out", tmp_path / "m") == 0
    assert "[batch, 8, 8, 1]" in capsys.readouterr().out
    inputs = sample(network)
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    (outputs,) = serve(**inputs).values()
    np.testing.assert_allclose(outputs, network(inputs), rtol=0, atol=1e-5)


def test_default_output_is_next_to_the_weights(weights):
    assert command("--model", "dfn_steerable", "--weights", weights, *SET, "--no-validate") == 0
    assert (weights.parent / "steerable" / "saved_model.pb").is_file()


def test_saved_model_to_onnx(onnx, saved_model, network, tmp_path):  # noqa: F811
    import onnxruntime

    ops = "native" if saved_model.name == "native" else "portable"
    out = tmp_path / "m.onnx"
    assert command(saved_model, "--format", "onnx", "--ops", ops, "--out", out) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    inputs = sample(network)
    (outputs,) = session.run(None, inputs)
    np.testing.assert_allclose(outputs, network(inputs), rtol=0, atol=1e-5)


def test_saved_model_to_saved_model(saved_model, network):
    status = command(saved_model, "--no-validate", "--ops", saved_model.name)
    out = saved_model.with_name(f"{saved_model.name}_exported")
    assert status == 0
    inputs = sample(network)
    (outputs,) = tf.saved_model.load(str(out)).signatures["serving_default"](**inputs).values()
    np.testing.assert_allclose(outputs, network(inputs), rtol=0, atol=1e-5)


def test_saved_model_in_the_current_folder(saved_model, monkeypatch):
    monkeypatch.chdir(saved_model)
    assert command(".", "--no-validate", "--ops", saved_model.name) == 0
    assert (saved_model.with_name(f"{saved_model.name}_exported") / "saved_model.pb").is_file()


def test_compiled_ops_of_a_saved_model_stay_compiled(native_library, network, tmp_path, capsys):
    export.export(network, tmp_path / "m", ops="native", validate=False, verbose=False)
    assert command(tmp_path / "m", "--out", tmp_path / "portable") == 1
    assert "stock TensorFlow lacks" in capsys.readouterr().err and not (tmp_path / "portable").exists()


def test_compiled_ops_that_are_missing(native_library, network, monkeypatch, tmp_path, capsys):
    export.export(network, tmp_path / "m", ops="native", validate=False, verbose=False)
    monkeypatch.setattr(library, "load", lambda: types.SimpleNamespace(ops=None, reason="no compiler"))
    assert command(tmp_path / "m") == 1
    assert "compiled ops of keras_dynfilter, which are not available: no compiler" in capsys.readouterr().err


def _saved(path, function, shape=(None, 2), name="serving_default"):
    """Saves a function of one tensor as a signature of a SavedModel. Returns its path."""
    serve = tf.function(function).get_concrete_function(tf.TensorSpec(shape, name="x"))
    tf.saved_model.save(tf.Module(), str(path), signatures={name: serve})
    return path


def test_saved_model_that_writes_a_file(tmp_path, capsys):
    target = tmp_path / "written"

    def serve(x):
        tf.io.write_file(str(target), "text")
        return {"y": x + 1.0}

    path = _saved(tmp_path / "m", serve)
    assert command(path, "--no-validate") == 1
    error = capsys.readouterr().err
    assert "files, processes or networks: WriteFile" in error and "--unsafe" in error and not target.exists()
    assert command(path, "--no-validate", "--unsafe") == 0


def test_broken_saved_models(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty") == 2
    assert "Expected a folder with saved_model.pb" in capsys.readouterr().err
    (tmp_path / "empty" / "saved_model.pb").write_bytes(b"not a model")
    assert command(tmp_path / "empty") == 1
    assert "is damaged" in capsys.readouterr().err
    assert command(_saved(tmp_path / "other", lambda x: {"y": x}, name="other")) == 1
    assert "Expected a signature serving_default. Received a SavedModel with these: other" in capsys.readouterr().err


def test_saved_model_of_unknown_rank(tmp_path, capsys):
    assert command(_saved(tmp_path / "m", lambda x: {"y": x}, shape=None)) == 1
    assert "known rank. Received: x of shape <unknown>" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected MODEL, a .keras file or a SavedModel folder, or --model NAME"),
        (["m.keras", "--model", "dfn_steerable", "--weights", "w.h5"], "expected MODEL or --model NAME, not both"),
        (["m.keras", "--weights", "w.h5"], "--weights and --set need --model"),
        (["m.keras", "--set", "kernel_size=3"], "--weights and --set need --model"),
        (["--model", "dfn_steerable"], "expected --weights FILE"),
        (["--model", "dfn_steerable", "--weights", "w.h5", "--unsafe"], "--unsafe is for MODEL"),
        (["--model", "dfn_moving_minst", "--weights", "w.h5"], "Did you mean 'dfn_moving_mnist'?"),
        (["--model", "repository_swap", "--weights", "w.h5"], "Expected --model to be one of"),
        (["--model", "dfn_steerable", "--weights", "missing.h5"], "No such file: missing.h5"),
        (["--model", "dfn_steerable", "--wieghts", "w.h5"], "Did you mean '--weights'?"),
        (["model.weights.h5"], "--model NAME --weights FILE"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, message",
    [
        ("kernelsize=3", "Did you mean 'kernel_size'?"),
        ("kernel_size", "Expected --set NAME=VALUE. Received: kernel_size"),
        ("kernel_size=4", "kernel_size"),
        ("kernel_size=three", "kernel_size"),
    ],
)
def test_wrong_options_of_a_network(option, message, weights, capsys):
    assert command("--model", "dfn_steerable", "--weights", weights, "--set", option) == 2
    assert message in capsys.readouterr().err


def test_weights_of_another_network(weights, tmp_path, capsys):
    assert command("--model", "dfn_steerable", "--weights", weights) == 1
    assert "does not hold weights of dfn_steerable" in capsys.readouterr().err
    (tmp_path / "text.weights.h5").write_text("text")
    assert command("--model", "dfn_steerable", "--weights", tmp_path / "text.weights.h5", *SET) == 1
    assert "does not hold weights of dfn_steerable" in capsys.readouterr().err


def test_networks_are_complete_networks():
    functions = networks.networks()
    assert {"dfn_moving_mnist", "ddf_resnet50", "repository_mnist", "dfn_stereo_baseline"} <= set(functions)
    assert not {
        "replace_convolutions",
        "FramePredictor",
        "autoencoder",
        "feature_generator",
        "generated_network",
    } & set(functions)
    assert all(isinstance(functions[name](), keras.Model) for name in ("dfn_steerable", "repository_mnist"))
