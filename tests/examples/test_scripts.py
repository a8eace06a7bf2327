# SPDX-License-Identifier: Apache-2.0
"""Runs the three teaching scripts and checks what they print and save: the motion, lower errors, files that load."""

import ast
import importlib
import re

import keras
import numpy as np
import pytest

from examples import custom_generator, ddf_in_resnet50, quickstart
from tests.support.paths import ROOT

SCRIPTS = ("quickstart", "ddf_in_resnet50", "custom_generator")


def test_quickstart_learns_the_shift(tmp_path, capsys):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("matplotlib")
    onnxruntime = pytest.importorskip("onnxruntime")
    quickstart.main(["--out", str(tmp_path)])
    printed = capsys.readouterr().out
    vectors = re.findall(r"(\w+) image: pixels come from x = (\S+), y = (\S+)", printed)
    assert [name for name, _, _ in vectors] == ["dark", "bright"]
    (dark_x, dark_y), (bright_x, bright_y) = ((float(x), float(y)) for _, x, y in vectors)
    assert dark_x == pytest.approx(2, abs=0.2) and bright_x == pytest.approx(-2, abs=0.2)
    assert abs(dark_y) < 0.1 and abs(bright_y) < 0.1
    assert "largest difference from Keras" in printed

    session = onnxruntime.InferenceSession(tmp_path / "quickstart.onnx", providers=["CPUExecutionProvider"])
    images, moved = quickstart.moving_images(6, seed=2)
    (predictions,) = session.run(None, {session.get_inputs()[0].name: images})
    still = images[:, 2:-2, 2:-2]
    assert np.mean((predictions - moved) ** 2) < 0.01 * np.mean((still - moved) ** 2)
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # traces, trains and loads a ResNet50
def test_ddf_in_resnet50_is_smaller_and_learns(tmp_path, capsys):
    ddf_in_resnet50.main(["--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "16 convolutions became DDF2D layers" in printed
    rows = re.findall(r"(\S+) million parameters +(\S+) million multiply-adds", printed)
    (parameters, flops), (ddf_parameters, ddf_flops) = (tuple(map(float, row)) for row in rows)
    assert ddf_parameters < 0.7 * parameters and ddf_flops < 0.7 * flops
    losses = [float(loss) for loss in re.findall(r" loss: (\S+)", printed)]
    assert len(losses) == 5 and losses[-1] < losses[0]
    layers = keras.saving.load_model(tmp_path / "ddf_resnet50.keras").layers
    assert sum(type(layer).__name__ == "DDF2D" for layer in layers) == 16


def test_ddf_in_resnet50_reads_images(tmp_path, monkeypatch, capsys):
    """`fit` gets the images of the folder, and the network has one class per subfolder."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs", "owls"):
        (tmp_path / "images" / name).mkdir(parents=True)
        keras.utils.save_img(tmp_path / "images" / name / "0.png", rng.integers(0, 255, (40, 50, 3)))

    def fit(model, data, **_):
        (images, labels), *others = data
        assert images.shape == (3, 64, 64, 3) and sorted(labels.numpy()) == [0, 1, 2] and not others
        assert model.output_shape == (None, 3)
        raise InterruptedError

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(InterruptedError):
        ddf_in_resnet50.main(["--out", str(tmp_path / "out"), "--images", str(tmp_path / "images")])
    assert "Found 3 files belonging to 3 classes" in capsys.readouterr().out


@pytest.mark.slow
def test_custom_generator_removes_more_noise_than_one_filter(tmp_path, capsys):
    custom_generator.main(["--out", str(tmp_path)])
    printed = capsys.readouterr().out
    noisy, one_filter, per_pixel = map(float, re.findall(r"mean squared error.*: +(\S+)", printed))
    assert noisy == pytest.approx(custom_generator.NOISE**2, rel=0.05)
    assert per_pixel < 0.5 * one_filter < 0.25 * noisy
    model = keras.saving.load_model(tmp_path / "denoiser.keras")
    images, clean = custom_generator.noisy_images(8, seed=3)
    assert np.mean((model.predict(images, verbose=0) - clean) ** 2) < 0.5 * one_filter


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short_and_use_public_names_only(name):
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 80
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= {"argparse", "pathlib", "keras", "numpy", "tensorflow"}
    for node in imports:
        if isinstance(node, ast.ImportFrom):
            assert re.fullmatch(r"keras_dynfilter(\.(export|inspection|layers|models))?", node.module)
            public = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(public)
