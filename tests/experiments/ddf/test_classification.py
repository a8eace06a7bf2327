# SPDX-License-Identifier: Apache-2.0
"""The training of DDF-ResNets as a user runs it: recipes, photographs, precisions, strategies."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import training
from examples.experiments.ddf import classification
from keras_dynfilter import models
from keras_dynfilter.models.ddf import resnet

TINY = ["--iterations", "3", "--batch-size", "4", "--checkpoint-every", "2", "--width", "4", "--size", "32"]
TINY += ["--no-deterministic"]


def write_jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(image, quality=98).numpy())


def test_recipes():
    paper = classification.parse(["--recipe", "paper", "--images", "x"])
    assert (paper.batch_size, paper.epochs, paper.learning_rate, paper.last_learning_rate) == (256, 120, 0.1, 1e-5)
    assert (paper.weight_decay, paper.warmup_epochs, paper.nesterov, paper.size) == (1e-4, 0.0, False, 224)
    assert (paper.rand_augment, paper.erasing, paper.label_smoothing, paper.mixed_precision) == (None, 0.0, 0.0, "none")
    released = classification.parse(["--recipe", "released", "--images", "x"])
    assert (released.batch_size, released.learning_rate, released.warmup_epochs) == (1024, 0.4, 5)
    assert (released.rand_augment, released.erasing, released.label_smoothing) == (7.0, 0.4, 0.1)
    assert (released.mixed_precision, released.network, released.width) == ("float16", "ddf_resnet50", 64)
    small = classification.parse([])
    assert (small.network, small.size, small.width) == ("ddf_resnet18", 32, 16)


RESNET18, RESNET50 = {"baseline": "69.6"}, {"baseline": "77.2 / 93.5"}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--network", "ddf_resnet18"], RESNET18),  # the network of the paper has another number of parameters
        (["--network", "ddf_resnet18", "--squeeze-ratio", "0.5"], {"ddf": "70.6", **RESNET18}),
        ([], {"ddf": "79.1 / 94.5", **RESNET50}),
        (["--squeeze-ratio", "0.4"], {"ddf": "79.2 / 94.5", **RESNET50}),
        (["--squeeze-ratio", "0.1"], RESNET50),
        (["--network", "ddf_resnet152"], {}),
        (["--width", "32"], {}),
    ],
)
def test_accuracies_of_the_paper(arguments, expected):
    args = classification.parse(["--recipe", "paper", "--images", "x", *arguments])
    assert classification.paper_figures(args) == expected
    assert classification.paper_figures(classification.parse([])) == {}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--recipe", "paper"], "--recipe: expected --images with paper"),
        (["--test-images", "x"], "--test-images: expected --images, too"),
        (["--size", "64"], "--size: expected 32 without --images, received 64"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        classification.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_networks():
    args = classification.parse(
        ["--images", "x", "--network", "ddf_resnet50", "--width", "8", "--squeeze-ratio", "0.4"]
    )
    network = classification.builders(args, 7)["ddf"]()
    assert network.output_shape == (None, 7) and network.get_layer("stem").strides == (2, 2)
    assert network.get_layer("stage1_block1_window").squeeze_ratio == 0.4
    assert network.layers[-1].activation.__name__ == "linear"


def test_smoothed_crossentropy():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], np.float32)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(0.9 * log[[0, 1], [1, 2]] + 0.1 * log.mean(axis=1))
    loss = classification.SmoothedCrossentropy(0.1)
    assert float(loss(np.array([1, 2]), logits)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(np.array([[1], [2]]), logits)) == pytest.approx(expected, rel=1e-5)


def test_top1_and_top5():
    logits = tf.constant([[9.0, 8, 7, 6, 5, 4, 3]] * 5)
    labels = tf.constant([0, 1, 4, 5, 6])
    batches = [(logits[:3], labels[:3]), (logits[3:], labels[3:])]
    figures = classification.accuracies(lambda images, training: images, batches)
    assert figures == {"top1": pytest.approx(20.0), "top5": pytest.approx(60.0), "images": 5}


@pytest.fixture
def shallow(monkeypatch):
    """Reduces ResNet-18 to one block."""
    monkeypatch.setitem(resnet.DEPTHS, 18, dict(blocks=(1,), block="basic"))


@pytest.mark.slow
def test_run_on_photographs(tmp_path, real_data, shallow):
    """Runs on 1,000 real photographs, each in a folder of its own. A resumed run must find the same photographs."""
    path = real_data("imagenet_one_per_class") / "imagenet_one_per_class.npz"
    with np.load(path) as content:
        jpeg, offsets, names = content["jpeg"], content["offsets"], content["wnid"]
    for name, begin, end in zip(names, offsets, offsets[1:]):
        file = tmp_path / "images" / str(name) / "1.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(jpeg[begin:end].tobytes())
    out = tmp_path / "out"
    arguments = [*TINY, "--images", str(tmp_path / "images"), "--out", str(out), "--network", "ddf_resnet18"]
    arguments += ["--rand-augment", "7", "--erasing", "0.5", "--label-smoothing", "0.1", "--batch-size", "20"]
    assert classification.main(arguments) == 0
    results = json.loads((out / "results.json").read_text())
    figures = results["test"]["ddf"]
    assert figures["images"] == 1000 and 0 <= figures["top1"] <= figures["top5"] <= 100
    built = models.ddf_resnet18((32, 32, 3), 1000, width=4, stem="cifar")
    assert figures["parameters"] == sum(math.prod(weight.shape) for weight in built.trainable_weights)
    assert results["training"]["ddf"]["iterations"] == 3 and results["tested"] == str(tmp_path / "images")
    (tmp_path / "images" / "other").mkdir()
    write_jpeg(tmp_path / "images" / "other" / "1.jpg", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(SystemExit, match="Expected the same training data"):
        classification.main([*arguments, "--resume"])


def test_a_network_learns_generated_images(tmp_path, monkeypatch, shallow):
    """The accuracy is far above chance after a few steps."""
    monkeypatch.setattr(training, "_save_model", lambda model, path: None)
    monkeypatch.setattr(data.cifar10, "SPLITS", {"train": 600, "test": 100})
    arguments = ["--source", "generated", "--iterations", "80", "--batch-size", "32", "--width", "8"]
    arguments += ["--baseline", "only", "--no-deterministic", "--warmup-epochs", "0", "--out", str(tmp_path)]
    assert classification.main(arguments) == 0
    figures = json.loads((tmp_path / "results.json").read_text())["test"]
    assert list(figures) == ["baseline"] and figures["baseline"]["images"] == 100
    assert figures["baseline"]["top5"] > 70


SHORT = [*TINY, "--source", "generated", "--warmup-epochs", "0", "--most-test-images", "12"]


def run(out, *arguments):
    """Runs three steps on generated images. Returns the results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.DEPTHS, 18, dict(blocks=(1,), block="basic"))
        patch.setattr(data.cifar10, "SPLITS", {"train": 40, "test": 12})
        assert classification.main([*SHORT, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def trained(out):
    return keras.models.load_model(out / "ddf.keras", compile=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the folder of a finished run."""
    out = tmp_path_factory.mktemp("run")
    assert run(out)["training"]["ddf"]["iterations"] == 3
    return out


def test_an_interrupted_run_continues(finished, tmp_path, monkeypatch, capsys):
    """A run that is interrupted after a checkpoint and resumed has the weights of an uninterrupted run."""
    save = training.Checkpointer.on_epoch_end

    def interrupt(self, epoch, logs=None):
        save(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Checkpointer, "on_epoch_end", interrupt)
        run(tmp_path)
    results = run(tmp_path, "--resume")
    assert "continues after step 2 of 3" in capsys.readouterr().out
    assert [epoch["step"] for epoch in results["training"]["ddf"]["history"]] == [2, 3]
    for value, expected in zip(trained(tmp_path).get_weights(), trained(finished).get_weights()):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def losses(out):
    history = json.loads((out / "results.json").read_text())["training"]["ddf"]["history"]
    return [epoch["loss"] for epoch in history]


def test_mixed_precision(finished, tmp_path):
    """The losses in bfloat16 are close to the losses in float32, and the trained network is in float32."""
    try:
        run(tmp_path, "--mixed-precision", "bfloat16")
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert losses(tmp_path) != losses(finished)
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=0.05)
    network = trained(tmp_path)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert {weight.dtype for weight in network.weights} == {"float32"}


TWO_DEVICES = """
import importlib.util, pathlib, sys
from tests.support import toy_experiment
out, file, *arguments = toy_experiment.with_devices(["--devices", "2", *sys.argv[1:]])
specification = importlib.util.spec_from_file_location("test_classification", file)
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
module.run(pathlib.Path(out), *arguments)
"""


@pytest.mark.slow
def test_mirrored_on_two_devices(finished, tmp_path, python):
    """Each device normalises its half of a batch, so the losses are only close to the losses on one device."""
    done = python("-c", TWO_DEVICES, str(tmp_path), __file__, "--strategy", "mirrored")
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=0.2)
    assert all(np.all(np.isfinite(weight)) for weight in trained(tmp_path).get_weights())
