# SPDX-License-Identifier: Apache-2.0
"""The steerable filter: its closed form, the triples, the network, and the experiment as a user runs it."""

import importlib
import json

import keras
import numpy as np
import pytest

from examples.experiments import data
from keras_dynfilter import inspection, models

signal = pytest.importorskip("scipy.signal")
ANGLES = np.deg2rad([0.0, 45.0, 90.0, 139.2, 180.0, 242.9])


@pytest.fixture
def example():
    return importlib.import_module("examples.experiments.dfn.steerable_filters")


def direct(images, angles):
    """Zero-padded cross-correlation with the formula, spelled out per tap; independent of the package."""
    results = []
    for image, angle in zip(images[..., 0], angles):
        taps = [
            [-(np.cos(angle) * dx + np.sin(angle) * dy) * np.exp(-(dx**2 + dy**2) / 2) for dx in range(-4, 5)]
            for dy in range(-4, 5)
        ]
        results.append(signal.correlate2d(image, np.array(taps), mode="same"))
    return np.stack(results)[..., None]


def test_closed_form_check_values():
    filters = data.steerable_filter(ANGLES)
    assert filters.shape == (6, 9, 9)
    np.testing.assert_allclose(filters.sum(axis=(1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=(1, 2)), 1.252164, atol=5e-7)
    assert filters[0, 4, 5] == pytest.approx(-0.606531, abs=5e-7)
    assert filters[0, 4, 3] == pytest.approx(0.606531, abs=5e-7)
    np.testing.assert_allclose(filters[2], filters[0].T, atol=1e-15)  # 90 degrees: falls downwards
    np.testing.assert_allclose(filters[4], -filters[0], atol=1e-15)


@pytest.mark.parametrize("arguments", [{"size": 8}, {"size": -1}, {"size": 9.0}, {"size": True}, {"sigma": 0.0}])
def test_closed_form_rejects(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Expected `{name}`.* Received: {name}="):
        data.steerable_filter(0.0, **arguments)


def test_filtered_is_a_zero_padded_cross_correlation():
    images = np.random.default_rng(0).random((6, 21, 16, 1))
    np.testing.assert_allclose(
        data.apply_steerable_filter(images, ANGLES), direct(images, ANGLES), rtol=1e-12, atol=1e-12
    )


IMAGES = np.zeros((2, 12, 12, 1), np.float32)
DATA_ERRORS = {
    "filtered rank": (
        lambda: data.apply_steerable_filter(IMAGES[0], [0.0]),
        r"`images` to have shape .*images\.shape=\(12, 12, 1\)",
    ),
    "filtered colour": (
        lambda: data.apply_steerable_filter(IMAGES.repeat(3, -1), [0.0] * 2),
        r"`images` to have .*\(2, 12, 12, 3\)",
    ),
    "filtered angles": (
        lambda: data.apply_steerable_filter(IMAGES, [0.0] * 3),
        r"Expected `angles` to be one per .*3 for 2 images",
    ),
    "filtered size": (
        lambda: data.apply_steerable_filter(IMAGES, [0.0] * 2, size=4),
        r"Expected `size` to be odd .*size=4",
    ),
    "triples empty": (lambda: data.steerable_triples(IMAGES[:0], 4, 1), r"Expected `images` to hold an image\..*\(0,"),
    "triples rank": (
        lambda: data.steerable_triples(IMAGES[0], 4, 1),
        r"Expected `images` to have shape .*\(12, 12, 1\)",
    ),
    "triples batch": (lambda: data.steerable_triples(IMAGES, 0, 1), r"`batch_size` to be a positive .*batch_size=0"),
    "patches count": (lambda: data.sample_patches(IMAGES[..., 0], -1, 8), r"Expected `count` to be a .*count=-1"),
    "patches float": (lambda: data.sample_patches(IMAGES[..., 0], 2.0, 8), r"Expected `count` to be a .*count=2\.0"),
    "patches size": (lambda: data.sample_patches(IMAGES[..., 0], 1, 0), r"Expected `size` to be a positive .*size=0"),
    "noise count": (lambda: data.noise_patches(-1), r"Expected `count` to be a non-negative integer\. .*count=-1"),
    "noise size": (lambda: data.noise_patches(1, size=-8), r"Expected `size` to be a positive integer\. .*size=-8"),
}


@pytest.mark.parametrize("make, message", DATA_ERRORS.values(), ids=DATA_ERRORS)
def test_data_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_patches_are_an_empty_array():
    assert data.noise_patches(0, size=8).shape == data.sample_patches(IMAGES[..., 0], 0, 8).shape == (0, 8, 8, 1)


def test_triples_hold_patches_angles_and_their_results():
    patches = data.noise_patches(20, size=24)
    batches = list(data.steerable_triples(patches, batch_size=16, steps=3, seed=5).as_numpy_iterator())
    assert len(batches) == 3
    angles = np.concatenate([inputs["angles"] for inputs, _ in batches])
    assert angles.shape == (48, 1) and angles.min() >= 0 and angles.max() < 2 * np.pi
    assert np.histogram(angles, bins=4, range=(0, 2 * np.pi))[0].min() > 0
    for inputs, results in batches:
        assert all(np.any(np.all(image == patches, axis=(1, 2, 3))) for image in inputs["images"])
        expected = direct(inputs["images"].astype(np.float64), inputs["angles"][:, 0].astype(np.float64))
        np.testing.assert_allclose(results, expected, rtol=1e-4, atol=2e-5)


def test_triples_depend_on_seed_and_step_only():
    patches = data.noise_patches(20, size=16)

    def flat(**arguments):
        batches = data.steerable_triples(patches, batch_size=4, steps=6, **arguments).as_numpy_iterator()
        return [np.concatenate([i["images"].ravel(), i["angles"].ravel(), r.ravel()]) for i, r in batches]

    whole = flat(seed=1)
    np.testing.assert_array_equal(whole, flat(seed=1))
    np.testing.assert_array_equal(whole[4:], flat(seed=1, start=4))
    for other in (flat(seed=2), whole[1:] + whole[:1]):
        assert all(np.any(a != b) for a, b in zip(whole, other))


def test_photographs_need_no_download(monkeypatch):
    pytest.importorskip("skimage")

    def refuse(*_):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    images = data.load_photographs()
    assert len(images) == 12
    for image in images:
        assert image.ndim == 2 and image.dtype == np.float32 and min(image.shape) >= 300
        assert 0 <= image.min() < image.max() <= 1
    with pytest.raises(ValueError, match=r"Expected `names` .* Received: names=\['brain'\]"):
        data.load_photographs(["camera", "brain"])


def test_patches_are_standardised_and_repeatable():
    images = [np.random.default_rng(i).random((70 + i, 90), np.float32) for i in range(3)]
    patches = data.sample_patches(images, 7, seed=3)
    assert patches.shape == (7, 64, 64, 1) and patches.dtype == np.float32
    np.testing.assert_allclose(patches.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(patches.std(axis=(1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_array_equal(patches, data.sample_patches(images, 7, seed=3))
    assert np.any(patches != data.sample_patches(images, 7, seed=4))
    assert np.all(np.isfinite(data.sample_patches([np.full((64, 64), 0.5, np.float32)], 1)))
    with pytest.raises(ValueError, match=r"at least 64 x 64.*63"):
        data.sample_patches([np.zeros((63, 80), np.float32)], 1)


def test_folder_of_images(tmp_path):
    io = pytest.importorskip("skimage.io")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 4)).astype(np.uint8)
    for name, image in {"a.png": pixels[..., 0], "b.png": pixels[..., :3], "c.png": pixels}.items():
        io.imsave(tmp_path / name, image, check_contrast=False)
    io.imsave(tmp_path / "small.png", pixels[:20, :20, 0], check_contrast=False)
    (tmp_path / "notes.txt").write_text("not an image")
    images = data.load_folder(tmp_path)
    assert [image.shape for image in images] == [(80, 70)] * 3
    np.testing.assert_allclose(images[0], pixels[..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(images[1], images[2], atol=1e-6)

    (tmp_path / "broken.png").write_bytes(b"no PNG")
    with pytest.raises(ValueError, match=r"broken\.png to be an image"):
        data.load_folder(tmp_path)
    with pytest.raises(ValueError, match="Expected `path` to be an existing folder"):
        data.load_folder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Expected `path` to hold images"):
        data.load_folder(tmp_path / "empty")


@pytest.mark.parametrize("raw_angles", [False, True])
def test_network_is_the_one_of_the_paper(raw_angles):
    model = models.dfn_steerable(raw_angles=raw_angles)
    assert model.count_params() == 18_897
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [
        (1, 64), (64,), (64, 128), (128,), (128, 81), (81,)
    ]  # fmt: skip
    filters = inspection.generated_filters(model, ANGLES)
    images = np.random.default_rng(0).random((6, 20, 24, 1), np.float32)
    results = model({"images": images, "angles": ANGLES[:, None].astype(np.float32)})
    expected = [signal.correlate2d(i[..., 0], f, mode="same") for i, f in zip(images, filters)]
    np.testing.assert_allclose(results[..., 0], expected, rtol=1e-4, atol=1e-5)

    features = ANGLES[:, None] if raw_angles else ANGLES[:, None] / np.pi - 1
    weights = [weight.numpy() for weight in model.trainable_weights]
    for kernel, bias in zip(weights[:4:2], weights[1:4:2]):
        features = features @ kernel + bias
        features = np.where(features > 0, features, 0.01 * features)
    np.testing.assert_allclose(filters.reshape(6, 81), features @ weights[4] + weights[5], rtol=1e-4, atol=1e-5)


def test_baseline_is_larger_and_has_the_same_interface():
    model = models.dfn_steerable_baseline()
    assert model.count_params() == 23_553
    images = np.zeros((2, 12, 10, 1), np.float32)
    assert model({"images": images, "angles": np.zeros((2, 1), np.float32)}).shape == (2, 12, 10, 1)


@pytest.mark.parametrize("network", [models.dfn_steerable, models.dfn_steerable_baseline])
def test_network_errors(network):
    for size in (4, 0, -3, 3.0, True, (3, 3)):
        with pytest.raises(ValueError, match=r"Expected `kernel_size` to be odd and positive\. Received: kernel_size="):
            network(size)
    with pytest.raises(ValueError, match=r"Expected `image_shape` to be \(height, width, 1\)\. .*\(8, 8, 3\)"):
        network(image_shape=(8, 8, 3))


def test_generated_filters_needs_a_network_that_generates_them():
    with pytest.raises(ValueError, match="filters"):
        inspection.generated_filters(models.dfn_steerable_baseline(), ANGLES)


def test_agreement(example):
    true = data.steerable_filter(ANGLES)
    correlation, error = example.agreement(2 * true + 1, true)
    np.testing.assert_allclose(correlation, 1)
    np.testing.assert_allclose(error, np.linalg.norm(true + 1, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2)))
    np.testing.assert_allclose(example.agreement(-true, true)[0], -1)
    np.testing.assert_array_equal(example.agreement(np.zeros_like(true), true)[0], 0)


def test_training_on_results_finds_the_filters(example):
    from examples.experiments.core import training

    keras.utils.set_random_seed(0)
    args = example.parse(["--epochs", "2", "--steps", "100", "--batch-size", "16"])
    model = models.dfn_steerable()
    before = example.agreement(*example.filters_at(model, np.arange(0, 360, 5)))[0]
    triples = data.steerable_triples(data.noise_patches(64, size=32), args.batch_size, steps=200)
    watch = example.FilterCorrelation()
    trainer = example.compiled(training.Trainer(model), args)
    history = trainer.fit(triples, epochs=2, steps_per_epoch=100, shuffle=False, callbacks=[watch], verbose=0)
    after = example.agreement(*example.filters_at(model, np.arange(0, 360, 5)))[0]
    assert before.mean() < 0.5
    assert after.mean() > 0.98
    first, last = history.history["worst_correlation"]
    assert first < last <= after.min()


def test_interrupted_training_goes_on_where_it_was(example, tmp_path):
    from examples.experiments.core import training

    args = example.parse(["--epochs", "3", "--steps", "5"])
    patches = data.noise_patches(8, size=16)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def compile_model(model):
        example.compiled(model, args)

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


def test_resume_needs_the_same_settings_and_images(example, monkeypatch, tmp_path):
    class Stop(Exception):
        pass

    settings = []

    def train(*_, **arguments):
        settings.append(arguments["settings"])
        raise Stop

    def run(*arguments):
        example.main(["--smoke", "--out", str(tmp_path), *arguments])

    photographs = [*np.random.default_rng(0).random((2, 70, 70), np.float32)]
    monkeypatch.setattr(data, "load_photographs", lambda: photographs)
    monkeypatch.setattr(example.training, "train", train)
    for arguments in ([], ["--resume"]):
        with pytest.raises(Stop):
            run(*arguments)
    assert settings[0] == settings[1] == json.loads((tmp_path / "settings.json").read_text())  # kept in the state
    with pytest.raises(SystemExit, match=r"Expected no --raw-angles, as in .* Received: --raw-angles"):
        run("--resume", "--raw-angles")
    photographs[0] *= 0
    with pytest.raises(
        SystemExit, match=r"the same training data: \{'patches': '64 x 64 x 64 x 1, float32, CRC-32 .{8}'\}"
    ):
        run("--resume")


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
def test_bad_arguments(example, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        example.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_smoke_sets_what_is_not_given(example):
    names = ("epochs", "steps", "batch_size", "patches")
    smoke, full = (example.parse(arguments) for arguments in (["--smoke"], []))
    assert [getattr(smoke, name) for name in names] == [2, 20, 8, 64]
    assert [getattr(full, name) for name in names] == [8, 500, 32, 2048]


@pytest.mark.parametrize("place", ["/proc/x", f"{__file__}/x"])
def test_out_that_cannot_be_made(example, place):
    with pytest.raises(SystemExit, match=r"--out: expected a folder that can be written\. Received: "):
        example.main(["--smoke", "--out", place])


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
def test_missed_target_fails(example, monkeypatch, capsys, tmp_path, arguments, reached, status, verdict):
    model = models.dfn_steerable()
    figures = {"training_seconds": 1.0, "test_mse": 1.0, "test_mse_of_zeros": 1.0, "parameters": 1}
    found = {**example.filter_figures(model), "target_reached": reached}
    picture = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    monkeypatch.setattr(example, "load", lambda args: example.Images(picture, picture, picture))
    trained = {"steerable": example.training.Trained(model, 1, 1.0, [], 1.0)}
    monkeypatch.setattr(example, "train", lambda *_: trained)
    monkeypatch.setattr(example, "evaluate", lambda *_: {"steerable": {**figures, **found}})
    monkeypatch.setattr(example, "draw", lambda *_: None)
    assert example.main([*arguments, "--out", str(tmp_path)]) == status
    assert verdict in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["exports"] == {}  # all was written


def test_smoke_run(python, tmp_path, example):
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
    correlation, error = example.agreement(*example.filters_at(model, np.arange(360)))
    assert figures["correlation_min"] == pytest.approx(correlation.min(), abs=1e-4)
    assert figures["relative_l2_error_mean"] == pytest.approx(error.mean(), abs=1e-4)
