# SPDX-License-Identifier: Apache-2.0
"""The steerable filter as a user runs it: agreement of filters, training, resumed runs, exit status, the smoke run."""

import json

import keras
import numpy as np
import pytest

from examples.experiments import data
from examples.experiments.core import checkpoint, run, training
from examples.experiments.dfn import steerable_filters
from keras_dynfilter import models

ANGLES = np.deg2rad([0.0, 45.0, 90.0, 139.2, 180.0, 242.9])


def test_agreement():
    true = data.steerable_filter(ANGLES)
    correlation, error = steerable_filters.agreement(2 * true + 1, true)
    np.testing.assert_allclose(correlation, 1)
    np.testing.assert_allclose(error, np.linalg.norm(true + 1, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2)))
    np.testing.assert_allclose(steerable_filters.agreement(-true, true)[0], -1)
    np.testing.assert_array_equal(steerable_filters.agreement(np.zeros_like(true), true)[0], 0)


def test_training_on_results_finds_the_filters():
    keras.utils.set_random_seed(0)
    args = steerable_filters.parse(["--epochs", "2", "--steps", "100", "--batch-size", "16"])
    model = models.dfn_steerable()
    before = steerable_filters.agreement(*steerable_filters.filters_at(model, np.arange(0, 360, 5)))[0]
    triples = data.steerable_triples(data.noise_patches(64, size=32), args.batch_size, steps=200)
    watch = steerable_filters.FilterCorrelation()
    trainer = steerable_filters.compiled(training.Trainer(model), args)
    history = trainer.fit(triples, epochs=2, steps_per_epoch=100, shuffle=False, callbacks=[watch], verbose=0)
    after = steerable_filters.agreement(*steerable_filters.filters_at(model, np.arange(0, 360, 5)))[0]
    assert before.mean() < 0.5
    assert after.mean() > 0.98
    first, last = history.history["worst_correlation"]
    assert first < last <= after.min()


def test_interrupted_training_continues(tmp_path):
    args = steerable_filters.parse(["--epochs", "3", "--steps", "5"])
    patches = data.noise_patches(8, size=16)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def compile_model(model):
        steerable_filters.compiled(model, args)

    def triples(start, end):
        return data.steerable_triples(patches, 4, end, start)

    def weights(name, callbacks=(), resume=False):
        done = training.train(
            name, models.dfn_steerable, compile_model, triples, 15, 5, tmp_path, callbacks=callbacks, resume=resume
        )
        return done.network.get_weights()

    expected = weights("whole")
    with pytest.raises(KeyboardInterrupt):
        weights("parts", [Interrupt()])
    for resumed in (
        weights("parts", resume=True),
        keras.models.load_model(tmp_path / "parts.keras").get_weights(),
    ):
        for value, other in zip(resumed, expected):
            np.testing.assert_array_equal(value, other)


def test_resume_needs_the_same_settings_and_images(monkeypatch, tmp_path):
    class Stop(Exception):
        pass

    settings = []

    def train(*_, **arguments):
        settings.append(arguments["settings"])
        raise Stop

    def run(*arguments):
        steerable_filters.main(["--smoke", "--out", str(tmp_path), *arguments])

    photographs = [*np.random.default_rng(0).random((2, 70, 70), np.float32)]
    monkeypatch.setattr(data, "load_photographs", lambda: photographs)
    monkeypatch.setattr(steerable_filters.training, "train", train)
    for arguments in ([], ["--resume"]):
        with pytest.raises(Stop):
            run(*arguments)
    assert settings[0] == settings[1] == checkpoint.read_settings(tmp_path / "settings.json")  # recorded in the state
    with pytest.raises(SystemExit, match=r"Expected no --raw-angles, as in .* Received: --raw-angles"):
        run("--resume", "--raw-angles")
    photographs[0] *= 0
    with pytest.raises(
        SystemExit, match=r"the same training data: \{'patches': '64 x 64 x 64 x 1, float32, CRC-32 .{8}'\}"
    ):
        run("--resume")


def test_damaged_state_ends_the_script_with_one_line(tmp_path):
    (tmp_path / "steerable.checkpoint").write_bytes(b"damaged")
    arguments = ["--smoke", "--images", "noise", "--out", str(tmp_path), "--resume"]
    with pytest.raises(SystemExit, match=r"Expected .*steerable\.checkpoint to hold the state of a training"):
        run.run_script(lambda: steerable_filters.main(arguments))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "--epochs: expected an integer above zero, received '0'"),
        (["--batch-size", "many"], "--batch-size: expected an integer above zero, received 'many'"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number above zero, received 'nan'"),
        (["--seed", "-1"], "--seed: expected an integer from 0"),
        (["--images", "no/such/folder"], "expected photos, noise or an existing folder, received 'no/such/folder'"),
        (["--out", __file__], "--out: expected a folder, received the file"),
        (["--export", "pickle"], "--export: invalid choice: 'pickle'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        steerable_filters.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_smoke_sets_what_is_not_given():
    names = ("epochs", "steps", "batch_size", "patches")
    smoke, full = (steerable_filters.parse(arguments) for arguments in (["--smoke"], []))
    assert [getattr(smoke, name) for name in names] == [2, 20, 8, 64]
    assert [getattr(full, name) for name in names] == [8, 500, 32, 2048]


@pytest.mark.parametrize("place", ["/proc/x", f"{__file__}/x"])
def test_out_that_cannot_be_made(place):
    with pytest.raises(SystemExit, match=r"--out: expected a folder that can be written\. Received: "):
        steerable_filters.main(["--smoke", "--out", place])


@pytest.mark.parametrize(
    "arguments, reached, status, verdict",
    [
        ([], True, 0, "0.999: reached"),
        ([], False, 1, "0.999: MISSED"),
        (["--raw-angles"], False, 1, "0.999: MISSED"),
        (["--epochs", "7"], False, 0, "not expected after 3500 steps instead of 4000"),
        (["--epochs", "9"], False, 1, "0.999: MISSED"),
        (["--smoke"], False, 0, "not expected after 40 steps instead of 4000"),
        (["--smoke"], True, 0, "0.999: reached"),
    ],
)
def test_missed_target_fails(monkeypatch, capsys, tmp_path, arguments, reached, status, verdict):
    model = models.dfn_steerable()
    figures = {"training_seconds": 1.0, "test_mse": 1.0, "test_mse_of_zeros": 1.0, "parameters": 1}
    found = {**steerable_filters.filter_figures(model), "target_reached": reached}
    picture = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    monkeypatch.setattr(steerable_filters, "load", lambda args: steerable_filters.Images(picture, picture, picture))
    trained = {"steerable": steerable_filters.training.Trained(model, 1, 1.0, [], 1.0)}
    monkeypatch.setattr(steerable_filters, "train", lambda *_: trained)
    monkeypatch.setattr(steerable_filters, "evaluate", lambda *_: {"steerable": {**figures, **found}})
    monkeypatch.setattr(steerable_filters, "draw", lambda *_: None)
    assert steerable_filters.main([*arguments, "--out", str(tmp_path)]) == status
    assert verdict in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["exports"] == {}  # written in either case


def test_smoke_run(python, tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    done = python(
        "-m", "examples.experiments.dfn.steerable_filters", "--smoke", "--baseline", "--seed", "3", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for file in ("steerable.png", "results.json", "steerable.keras"):
        assert str(out / file) in done.stdout
    assert (out / "steerable.png").read_bytes().startswith(b"\x89PNG")

    run = json.loads((out / "results.json").read_text())
    assert run["command"].startswith("python -m examples.experiments.dfn.steerable_filters --smoke")
    assert run["seed"] == 3 and run["seconds"] > 0
    assert run["versions"]["keras"] == keras.__version__ and run["machine"]["cores"] >= 1
    figures = run["figures"]["steerable"]
    assert figures["parameters"] == 18_897 and not figures["target_reached"]
    assert run["figures"]["baseline"]["test_mse"] > 0

    model = keras.models.load_model(out / "steerable.keras")
    correlation, error = steerable_filters.agreement(*steerable_filters.filters_at(model, np.arange(360)))
    assert figures["correlation_min"] == pytest.approx(correlation.min(), abs=1e-4)
    assert figures["relative_l2_error_mean"] == pytest.approx(error.mean(), abs=1e-4)
