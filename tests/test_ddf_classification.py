# SPDX-License-Identifier: Apache-2.0
"""Photographs in folders, their augmentations, and the training of DDF-ResNets on them as a user runs it."""

import json
import math

import ddf_classification
import keras
import numpy as np
import pytest
import tensorflow as tf

import sgd
import training
from keras_dynfilter import data, models
from keras_dynfilter.data import image_folder
from keras_dynfilter.data.rand_augment import OPERATIONS
from keras_dynfilter.models import ddf_resnet

PLAIN = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves values as they are
TINY = ["--iterations", "3", "--batch-size", "4", "--checkpoint-every", "2", "--width", "4", "--size", "32"]
TINY += ["--no-deterministic"]


def key(number):
    return tf.constant([7, number], tf.int64)


def write_jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(image, quality=98).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of grey photographs, of different sizes; how bright they are tells which they are."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(6):
        image = np.full((40 + number, 60 - number, 3), 20 + 40 * number, np.uint8)
        write_jpeg(folder / "cab"[number % 3] / f"{number}.jpg", image)
    (folder / "a" / "notes.txt").write_text("no image")
    return folder


def brightness(images):
    return np.rint((images.numpy().mean(axis=(1, 2, 3)) - 20) / 40).astype(int)


# Folders


def test_list_images(folder, tmp_path):
    files, labels, classes = data.list_images(folder)
    assert classes == ["a", "b", "c"] and labels.dtype == np.int32
    assert [(file[-7:], label) for file, label in zip(files, labels)] == [
        ("a/1.jpg", 0),
        ("a/4.jpg", 0),
        ("b/2.jpg", 1),
        ("b/5.jpg", 1),
        ("c/0.jpg", 2),
        ("c/3.jpg", 2),
    ]
    assert data.list_images(folder, ["c", "x", "b", "a"])[1].tolist() == [3, 3, 2, 2, 0, 0]
    with pytest.raises(ValueError, match=r"Expected `folder` to hold a folder of images .* unknown classes: \['c'\]"):
        data.list_images(folder, ["a", "b"])
    for empty in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"Received: folder='.*', 0 images"):
            data.list_images(empty)


def test_photographs_to_train_on(folder):
    files, labels, _ = data.list_images(folder)
    options = dict(size=16, statistics=PLAIN, seed=3)
    batches = [*data.photograph_batches(files, labels, 4, 3, **options)]
    assert all(images.shape == (4, 16, 16, 3) and images.dtype == tf.float32 for images, _ in batches)
    found = np.concatenate([brightness(images) for images, _ in batches])
    assert sorted(found[:6]) == sorted(found[6:]) == list(range(6))  # two epochs
    of_number = {0: 2, 1: 0, 2: 1}  # folders c, a, b
    assert [int(label) for _, labels in batches for label in labels] == [of_number[number % 3] for number in found]
    (images, _), *rest = data.photograph_batches(files, labels, 4, 3, start=2, **options)
    np.testing.assert_array_equal(images, batches[2][0])
    assert not rest
    ((jittered, _),) = data.photograph_batches(files, labels, 4, 3, start=2, color_jitter=0.4, **options)
    factors = jittered.numpy().mean(axis=(1, 2, 3)) / images.numpy().mean(axis=(1, 2, 3))
    assert 0.59 < factors.min() < 0.99 or 1.01 < factors.max() < 1.41
    with pytest.raises(ValueError, match="one label for each"):
        data.photograph_batches(files, labels[1:], 4, 3)


def test_photographs_to_test_on(tmp_path):
    """The middle of the image, not distorted."""
    image = np.zeros((80, 100, 3), np.uint8)
    image[5:75, 15:85] = 200  # 0.875 of 80, in the middle
    write_jpeg(tmp_path / "a" / "1.jpg", image)
    files, _, _ = data.list_images(tmp_path)
    ((images, found),) = data.photograph_tests(files * 2, [0, 5], 4, size=35, statistics=PLAIN)
    assert images.shape == (2, 35, 35, 3) and found.numpy().tolist() == [0, 5]
    assert images.numpy()[:, 1:-1, 1:-1].min() > 190 and images.numpy()[:, [0, -1]].min() > 100


def test_random_crops():
    """Areas and shapes are those of the recipe, and half are mirrored."""
    ramp = np.broadcast_to(np.linspace(0, 255, 120)[None, :, None], (90, 120, 3)).astype(np.float32)
    down = np.broadcast_to(np.linspace(0, 255, 90)[:, None, None], (90, 120, 3)).astype(np.float32)
    image = tf.constant(np.stack([ramp[..., 0], down[..., 0], down[..., 0]], axis=-1))
    crop = tf.function(
        lambda number: image_folder.random_crop(image, tf.stack([tf.constant(0, tf.int64), number]), 20, 0.08)
    )
    crops = np.stack([crop(tf.constant(number, tf.int64)) for number in range(200)])
    width = (crops[:, 10, -2, 0] - crops[:, 10, 1, 0]) * 120 / 255 / 17 * 20
    height = (crops[:, -2, 10, 1] - crops[:, 1, 10, 1]) * 90 / 255 / 17 * 20
    area = np.abs(width) * height / (90 * 120)
    assert 70 < (width < 0).sum() < 130
    assert area.min() > 0.06 and area.max() < 1.1 and area.min() < 0.15 and area.max() > 0.85
    assert (np.abs(width) / height).min() > 0.65 and (np.abs(width) / height).max() < 1.5


def test_color_jitter():
    image = tf.constant(np.random.default_rng(0).uniform(80, 120, (6, 5, 3)), tf.float32)
    np.testing.assert_allclose(image_folder.jittered(image, key(0), 0.0), image, rtol=1e-4)
    changed = image_folder.jittered(image, key(1), 0.4).numpy()
    assert changed.shape == image.shape and 0.6 * 100 - 1 < changed.mean() < 1.4 * 100 + 1
    assert np.abs(changed - image).max() > 2


def test_random_erasing():
    image = tf.fill([40, 30, 3], 9.0)
    erase = tf.function(lambda number: image_folder.erased(image, tf.stack([tf.constant(1, tf.int64), number]), 0.4))
    results = np.stack([erase(tf.constant(number, tf.int64)) for number in range(300)])
    changed = (results != 9.0).any(axis=-1)
    share = changed.mean(axis=(1, 2))
    assert 90 < (share > 0).sum() < 150  # 0.4 of 300
    assert 0.005 < share[share > 0].min() < 0.05 and 0.2 < share.max() < 0.4
    places = map(np.nonzero, changed[share > 0])
    alone = np.mean([(np.ptp(rows) + 1) * (np.ptp(columns) + 1) == len(rows) for rows, columns in places])
    assert 0.2 < alone < 0.7  # one rectangle of three at most, or several on top of each other
    noise = results[changed]
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert (image_folder.erased(image, key(0), 0.0) == image).numpy().all()


# RandAugment


@pytest.fixture(scope="module")
def picture():
    values = np.random.default_rng(0).uniform(20, 180, (9, 11, 3))
    return tf.constant(np.rint(values), tf.float32)


@pytest.mark.parametrize(
    "name",
    ["rotate", "color", "contrast", "brightness", "sharpness"]
    + [f"{k} {a}" for k in ("shear", "translate") for a in "xy"],
)
def test_operations_begin_with_nothing(picture, name):
    np.testing.assert_allclose(OPERATIONS[name](picture, tf.constant(0.0), tf.constant(0.0)), picture, atol=0.01)


def test_operations_of_pixels(picture):
    share, image = tf.constant(0.7), picture.numpy()
    apply = {name: OPERATIONS[name](picture, share, share).numpy() for name in OPERATIONS}
    np.testing.assert_array_equal(apply["invert"], 255 - image)
    np.testing.assert_array_equal(apply["posterize"], np.floor(image / 64) * 64)  # 2 of 8 bits are left
    np.testing.assert_array_equal(apply["solarize"], np.where(image < 256 - 179, image, 255 - image))
    np.testing.assert_array_equal(apply["solarize add"], np.where(image < 128, image + 77, image))
    np.testing.assert_allclose(apply["brightness"], np.minimum(image * 1.63, 255), rtol=1e-5)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    np.testing.assert_allclose(apply["auto contrast"], (image - low) / (high - low) * 255, rtol=1e-4)
    grey = np.rint(image @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(
        apply["color"], np.clip(grey[..., None] + 1.63 * (image - grey[..., None]), 0, 255), rtol=1e-3
    )
    np.testing.assert_allclose(
        apply["contrast"], np.clip(grey.mean() + 1.63 * (image - grey.mean()), 0, 255), rtol=1e-3
    )
    assert apply["sharpness"][1:-1, 1:-1].std() > image[1:-1, 1:-1].std()
    np.testing.assert_allclose(apply["sharpness"][0], image[0])


def test_equalize():
    """Values that are equally frequent are spread evenly."""
    values = np.repeat(np.arange(60, 100), 2560).reshape(320, 320)[..., None].repeat(3, axis=-1)
    found = OPERATIONS["equalize"](tf.constant(values, tf.float32), None, None).numpy()
    levels = np.unique(found)
    assert len(levels) == 40 and (levels[0], levels[-1]) == (0, 255)
    assert set(np.diff(levels)) == {6, 7}
    flat = tf.fill([4, 4, 3], 77.0)
    np.testing.assert_array_equal(OPERATIONS["equalize"](flat, None, None), flat)


def test_operations_of_places(picture):
    half, image = tf.constant(0.5), picture.numpy()
    moved = OPERATIONS["translate x"](picture, half, tf.constant(2 / 0.45 / 11)).numpy()
    np.testing.assert_allclose(moved[:, :-2], image[:, 2:], atol=0.01)
    np.testing.assert_allclose(moved[:, -1], [[124, 116, 104]] * 9, atol=0.01)
    moved = OPERATIONS["translate y"](picture, half, tf.constant(-1 / 0.45 / 9)).numpy()
    np.testing.assert_allclose(moved[1:], image[:-1], atol=0.01)
    square = picture[:, 1:10]
    turned = OPERATIONS["rotate"](square, half, tf.constant(3.0)).numpy()  # 90 degrees
    candidates = [np.rot90(square, k) for k in (1, 3)]
    assert min(np.abs(turned - candidate)[1:-1, 1:-1].max() for candidate in candidates) < 0.1
    sheared = OPERATIONS["shear x"](picture, half, tf.constant(1 / 0.3)).numpy()
    np.testing.assert_allclose(sheared[3, :8], image[3, 3:], atol=0.01)


def test_rand_augment(picture):
    augment = tf.function(lambda number: data.rand_augment(picture, tf.stack([tf.constant(0, tf.int64), number]), 7.0))
    results = np.stack([augment(tf.constant(number, tf.int64)) for number in range(120)])
    same = (results == picture.numpy()).all(axis=(1, 2, 3)).sum()
    assert 15 < same < 60  # a quarter, and what does nothing here
    assert len({result.tobytes() for result in results}) > 50
    assert results.min() >= 0 and results.max() <= 255
    np.testing.assert_array_equal(augment(tf.constant(5, tf.int64)), results[5])


# The script


def test_recipes():
    paper = ddf_classification.parse(["--recipe", "paper", "--images", "x"])
    assert (paper.batch_size, paper.epochs, paper.learning_rate, paper.last_learning_rate) == (256, 120, 0.1, 1e-5)
    assert (paper.weight_decay, paper.warmup_epochs, paper.nesterov, paper.size) == (1e-4, 0.0, False, 224)
    assert (paper.rand_augment, paper.erasing, paper.label_smoothing, paper.mixed_precision) == (None, 0.0, 0.0, "none")
    released = ddf_classification.parse(["--recipe", "released", "--images", "x"])
    assert (released.batch_size, released.learning_rate, released.warmup_epochs) == (1024, 0.4, 5)
    assert (released.rand_augment, released.erasing, released.label_smoothing) == (7.0, 0.4, 0.1)
    assert (released.mixed_precision, released.network, released.width) == ("float16", "ddf_resnet50", 64)
    small = ddf_classification.parse([])
    assert (small.network, small.size, small.width) == ("ddf_resnet18", 32, 16)


RESNET18, RESNET50 = {"baseline": "69.6"}, {"baseline": "77.2 / 93.5"}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--network", "ddf_resnet18"], RESNET18),  # the paper has other numbers of parameters
        (["--network", "ddf_resnet18", "--squeeze-ratio", "0.5"], {"ddf": "70.6", **RESNET18}),
        ([], {"ddf": "79.1 / 94.5", **RESNET50}),
        (["--squeeze-ratio", "0.4"], {"ddf": "79.2 / 94.5", **RESNET50}),
        (["--squeeze-ratio", "0.1"], RESNET50),
        (["--network", "ddf_resnet152"], {}),
        (["--width", "32"], {}),
    ],
)
def test_what_the_paper_prints_for_a_network(arguments, expected):
    args = ddf_classification.parse(["--recipe", "paper", "--images", "x", *arguments])
    assert ddf_classification.paper_figures(args) == expected
    assert ddf_classification.paper_figures(ddf_classification.parse([])) == {}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--recipe", "paper"], "--recipe: expected --images with paper"),
        (["--test-images", "x"], "--test-images: expected --images beside it"),
        (["--size", "64"], "--size: expected 32 without --images, received 64"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        ddf_classification.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_networks():
    args = ddf_classification.parse(
        ["--images", "x", "--network", "ddf_resnet50", "--width", "8", "--squeeze-ratio", "0.4"]
    )
    network = ddf_classification.builders(args, 7)["ddf"]()
    assert network.output_shape == (None, 7) and network.get_layer("stem").strides == (2, 2)
    assert network.get_layer("stage1_block1_window").squeeze_ratio == 0.4
    assert network.layers[-1].activation.__name__ == "linear"


def test_smoothed_crossentropy():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], np.float32)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(0.9 * log[[0, 1], [1, 2]] + 0.1 * log.mean(axis=1))
    loss = ddf_classification.SmoothedCrossentropy(0.1)
    assert float(loss(np.array([1, 2]), logits)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(np.array([[1], [2]]), logits)) == pytest.approx(expected, rel=1e-5)


def test_schedule_of_sgd():
    optimizer = sgd.make(0.4, 100, warmup=10, weight_decay=1e-4, last_rate=0.04, nesterov=False)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.22, 0.04], abs=1e-6)
    assert optimizer.get_config()["nesterov"] is False
    assert optimizer.get_config()["weight_decay"] == pytest.approx(1e-3)
    assert float(sgd.make(0.1, 10)._learning_rate(0)) == pytest.approx(0.1)


def test_top1_and_top5():
    logits = tf.constant([[9.0, 8, 7, 6, 5, 4, 3]] * 5)
    labels = tf.constant([0, 1, 4, 5, 6])
    batches = [(logits[:3], labels[:3]), (logits[3:], labels[3:])]
    figures = ddf_classification.evaluate(lambda images, training: images, batches)
    assert figures == {"top1": pytest.approx(20.0), "top5": pytest.approx(60.0), "images": 5}


@pytest.fixture
def shallow(monkeypatch):
    """One block in the place of the eight of ResNet-18."""
    monkeypatch.setitem(ddf_resnet.DEPTHS, 18, dict(blocks=(1,), block="basic"))


def test_run_on_photographs(tmp_path, real_data, shallow):
    """1,000 real photographs, a folder each; a run that is resumed must find the same ones."""
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
    assert ddf_classification.main(arguments) == 0
    results = json.loads((out / "results.json").read_text())
    figures = results["test"]["ddf"]
    assert figures["images"] == 1000 and 0 <= figures["top1"] <= figures["top5"] <= 100
    built = models.ddf_resnet18((32, 32, 3), 1000, width=4, stem="cifar")
    assert figures["parameters"] == sum(math.prod(weight.shape) for weight in built.trainable_weights)
    assert results["training"]["ddf"]["iterations"] == 3 and results["tested"] == str(tmp_path / "images")
    (tmp_path / "images" / "other").mkdir()
    write_jpeg(tmp_path / "images" / "other" / "1.jpg", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(SystemExit, match="expected the same training data"):
        ddf_classification.main([*arguments, "--resume"])


def test_a_network_learns_generated_images(tmp_path, monkeypatch, shallow):
    """What is trained is what is tested: far above chance after a few steps."""
    monkeypatch.setattr(training, "_save_model", lambda model, path: None)
    monkeypatch.setattr(data.cifar10, "SPLITS", {"train": 600, "test": 100})
    arguments = ["--source", "generated", "--iterations", "80", "--batch-size", "32", "--width", "8"]
    arguments += ["--baseline", "only", "--no-deterministic", "--warmup-epochs", "0", "--out", str(tmp_path)]
    assert ddf_classification.main(arguments) == 0
    figures = json.loads((tmp_path / "results.json").read_text())["test"]
    assert list(figures) == ["baseline"] and figures["baseline"]["images"] == 100
    assert figures["baseline"]["top5"] > 70


SHORT = [*TINY, "--source", "generated", "--warmup-epochs", "0", "--most-test-images", "12"]


def run(out, *arguments):
    """A run of three steps on generated images; returns its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ddf_resnet.DEPTHS, 18, dict(blocks=(1,), block="basic"))
        patch.setattr(data.cifar10, "SPLITS", {"train": 40, "test": 12})
        assert ddf_classification.main([*SHORT, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def trained(out):
    return keras.models.load_model(out / "ddf.keras", compile=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that is finished."""
    out = tmp_path_factory.mktemp("run")
    assert run(out)["training"]["ddf"]["iterations"] == 3
    return out


def test_a_run_under_way_is_continued(finished, tmp_path, monkeypatch, capsys):
    """Interrupted after a checkpoint, and resumed: the weights are those of a run that was not interrupted."""
    save = training.Keeper.on_epoch_end

    def interrupt(self, epoch, logs=None):
        save(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Keeper, "on_epoch_end", interrupt)
        run(tmp_path)
    results = run(tmp_path, "--resume")
    assert "continues after step 2 of 3" in capsys.readouterr().out
    assert [each["step"] for each in results["training"]["ddf"]["history"]] == [2, 3]
    for value, expected in zip(trained(tmp_path).get_weights(), trained(finished).get_weights()):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def losses(out):
    history = json.loads((out / "results.json").read_text())["training"]["ddf"]["history"]
    return [each["loss"] for each in history]


def test_mixed_precision(finished, tmp_path):
    """Computes in bfloat16, with losses near those of float32, and leaves a network in float32."""
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
import sys
import toy_experiment
arguments = toy_experiment.with_devices(["--devices", "2", *sys.argv[1:]])
import pathlib
import test_ddf_classification
test_ddf_classification.run(pathlib.Path(arguments[0]), *arguments[1:])
"""


@pytest.mark.slow
def test_mirrored_on_two_devices(finished, tmp_path, python):
    """Each normalises its half of a batch by itself, so the losses are only near those of one device."""
    done = python("-c", TWO_DEVICES, str(tmp_path), "--strategy", "mirrored")
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(losses(tmp_path), losses(finished), rtol=0.2)
    assert all(np.all(np.isfinite(weight)) for weight in trained(tmp_path).get_weights())
