# SPDX-License-Identifier: Apache-2.0
"""The DFN networks train (also with XLA, in mixed precision and on two devices), and can be saved and exported."""

import keras
import numpy as np
import pytest

import keras_dynfilter
from keras_dynfilter import export, inspection, models

pytestmark = pytest.mark.legacy

SMALL = dict(input_frames=3, output_frames=2, kernel_size=3, width=0.125)
NETWORKS = {
    "moving_mnist": lambda: models.dfn_moving_mnist((8, 8, 1), **SMALL),
    "moving_mnist_baseline": lambda: models.dfn_moving_mnist_baseline((8, 8, 1), **SMALL),
    "highway": lambda: models.dfn_highway((8, 8, 1), **SMALL),
    "highway_baseline": lambda: models.dfn_highway_baseline((8, 8, 1), **SMALL),
    "stereo": lambda: models.dfn_stereo((8, 8, 1), (1, 3), 0.125),
    "stereo_baseline": lambda: models.dfn_stereo_baseline((8, 8, 1), (1, 3), 0.125),
}
BATCH = 4


def data(model):
    """Makes inputs and targets: noise that moves one pixel to the left per frame, or two views, one pixel apart."""
    scene = np.random.default_rng(3).random((4 * BATCH, 8, 16, 1)).astype("float32")
    frames = np.stack([scene[:, :, step : step + 8] for step in range(5)], axis=1)
    return (frames[:, :3], frames[:, 3:]) if isinstance(model, models.FramePredictor) else (frames[:, 0], frames[:, 1])


def train(model, epochs=15, **options):
    """Fits the model. Returns the loss of each epoch."""
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    return model.fit(*data(model), batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def check_training(name, **options):
    """Trains a network. Checks that its loss falls and that every weight changes. Returns the network."""
    model = NETWORKS[name]()
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = train(model, **options)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < (0.9 if "baseline" in name else 0.7) * losses[0], losses
    for weight, old in zip(model.trainable_weights, before):
        assert np.abs(weight.numpy() - old).max() > 1e-4, f"{weight.name} was not trained"
    return model


@pytest.mark.parametrize("name", ["highway", "stereo"])
def test_jit_compile(name, native_xla):
    with keras_dynfilter.implementation("native"):
        model = check_training(name, jit_compile=True)
    assert model.jit_compile


@pytest.mark.parametrize("name, policy", [("highway", "mixed_float16"), ("stereo", "mixed_bfloat16")])
def test_mixed_precision(name, policy, tmp_path):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = check_training(name)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    inputs, _ = data(model)
    narrow = policy.removeprefix("mixed_")
    if isinstance(model, models.FramePredictor):
        network, output = model.network, model(inputs, return_filters=True)
        images = np.concatenate([inputs[:, -2], inputs[:, -1]], axis=-1)
        assert all(value.dtype == "float32" for value in output.values())
    else:
        network, output, images = model.get_layer("filters"), {"frames": model(inputs)}, inputs
    features = network.encode(images)
    assert features.dtype == narrow and network.decode(features, images).dtype == narrow
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)

    model.save(tmp_path / "model.keras")  # a loaded model keeps its precision, whatever the global policy is
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(inputs), output["frames"])

    float32_model = NETWORKS[name]()
    float32_model.set_weights(model.get_weights())
    np.testing.assert_allclose(float32_model(inputs), np.asarray(output["frames"], np.float32), atol=0.05)
    assert np.any(float32_model(inputs) != np.asarray(output["frames"], np.float32))


MIRRORED = """
import numpy as np
import tensorflow as tf
from tests.models.dfn import test_training as training

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
alone = training.NETWORKS["highway"]()
with strategy.scope():
    mirrored = training.NETWORKS["highway"]()
    mirrored.set_weights(alone.get_weights())
    losses = training.train(mirrored, epochs=2)
np.testing.assert_allclose(losses, training.train(alone, epochs=2), rtol=0.01)
for weights, expected in zip(mirrored.get_weights(), alone.get_weights()):
    np.testing.assert_allclose(weights, expected, rtol=0.02, atol=0.02)
print("same training")
"""


@pytest.mark.slow  # a process of its own, which trains twice
def test_training_on_two_devices_equals_training_on_one(python):
    done = python("-c", MIRRORED)  # a fresh process: logical devices must be created before TensorFlow starts
    assert done.returncode == 0 and "same training" in done.stdout, done.stderr[-4000:]


@pytest.mark.parametrize("name", ["moving_mnist", "highway_baseline", "stereo"])
def test_train_save_and_load(name, tmp_path):
    model = check_training(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs, targets = data(model)
    assert loaded.name == model.name and loaded.count_params() == model.count_params()
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    if isinstance(model, models.FramePredictor):
        np.testing.assert_array_equal(loaded(inputs, steps=4), model(inputs, steps=4))
        assert (loaded.output_frames, loaded.buffer) == (2, model.buffer)
    if "baseline" not in name:
        np.testing.assert_array_equal(
            inspection.generated_filters(loaded, inputs), inspection.generated_filters(model, inputs)
        )
    # The optimizer is saved as well, so both models continue to train in the same way.
    for network in (model, loaded):
        network.fit(inputs, targets, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    for weights, expected in zip(loaded.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(weights, expected)


EXPORTED = {
    "moving_mnist": NETWORKS["moving_mnist"],
    "moving_mnist_baseline": NETWORKS["moving_mnist_baseline"],
    "highway, tied": lambda: models.dfn_highway((None, None, 1), 2, 2, 3, 0.125, untied_bias=False),
    "stereo, tied": lambda: models.dfn_stereo((None, None, 1), (1, 3), 0.125, untied_bias=False),
    "moving_mnist_blended": lambda: models.dfn_moving_mnist_blended((8, 8, 1), 3, 1, 3, 0.125),
    "highway_baseline": lambda: models.dfn_highway_baseline((8, 8, 1), 3, 1, 3, 0.125),
    "stereo_baseline": NETWORKS["stereo_baseline"],
}


@pytest.mark.parametrize("name", EXPORTED)
def test_export_to_onnx(name, tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    model = EXPORTED[name]()
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(0).normal(0, 0.2, weight.shape))
    report = export.export(model, tmp_path / "model.onnx", format="onnx", verbose=False)
    assert report.passed and not report.validation.skipped
    size = ("height", "width") if "tied" in name else (8, 8)
    frames = [] if "stereo" in name else [2] if name == "highway, tied" else [3]
    assert [shape for _, shape in report.inputs.values()] == [["batch", *frames, *size, 1]]


def test_export_to_saved_model(tmp_path):
    assert export.export(NETWORKS["highway"](), tmp_path / "model", format="saved_model", verbose=False).passed
