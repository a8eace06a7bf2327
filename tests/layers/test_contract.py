# SPDX-License-Identifier: Apache-2.0
"""Checks that every public layer behaves like a Keras layer: shapes, data formats, dtypes, configuration, files."""

import doctest
import importlib
import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import layers
from tests.support.layer_cases import CASES, CLASSES, from_layout

pytestmark = pytest.mark.legacy

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
NAMED_OPTIONS = ("activation", "initializer", "regularizer", "constraint")  # given as strings, saved as configurations


def options(case, data_format):
    return {"data_format": data_format} if case.has_data_format else {}


def test_every_public_layer_has_cases():
    assert {cls.__name__ for cls in CLASSES} >= set(layers.__all__)


@every_case
def test_shapes_and_data_formats(case, data_format):
    """Eager, symbolic and traced calls agree with `compute_output_shape`; both data formats give the same values."""
    if data_format == "channels_first" and not case.has_data_format:
        pytest.skip("has no data format")
    layer, reference = case.make(**options(case, data_format)), case.make(**options(case, "channels_last"))
    inputs = case.inputs(data_format=data_format)
    outputs = case.call(layer, inputs)
    shapes = [value.shape for value in inputs]
    assert tuple(case.call(layer.compute_output_shape, shapes)) == tuple(outputs.shape)
    assert all(size > 0 for size in outputs.shape)

    symbolic = case.call(case.make(**options(case, data_format)), [keras.Input(shape[1:]) for shape in shapes])
    assert tuple(symbolic.shape) == (None, *outputs.shape[1:])

    specs = [tf.TensorSpec((None, *shape[1:])) for shape in shapes]
    traced = tf.function(lambda *tensors: case.call(layer, list(tensors))).get_concrete_function(*specs)
    assert tuple(traced.structured_outputs.shape)[1:] == tuple(outputs.shape)[1:]

    case.call(reference, case.inputs())
    reference.set_weights(layer.get_weights())
    expected = case.call(reference, case.inputs())
    np.testing.assert_allclose(from_layout(outputs, data_format), expected, rtol=1e-4, atol=1e-5)


@every_case
def test_unknown_sizes(case, data_format):
    if not case.unknown_sizes or (data_format == "channels_first" and not case.has_data_format):
        pytest.skip("needs known sizes, or has no data format")
    layer = case.make(**options(case, data_format))
    inputs = [keras.Input(shape[1:]) for shape in case.batched(None, data_format, unknown=True)]
    model = keras.Model(inputs, case.call(layer, inputs))
    shapes = case.batched(None, data_format, unknown=True)
    assert tuple(model.output_shape) == tuple(case.call(layer.compute_output_shape, shapes))
    values = case.inputs(data_format=data_format)
    expected = case.call(layer, values)
    np.testing.assert_allclose(model(values), expected, rtol=1e-5, atol=1e-5)
    assert all(inferred in (None, size) for inferred, size in zip(model.output_shape, expected.shape))


@every_case
def test_gradients_and_empty_batches(case):
    """Every weight and input gets a finite, nonzero gradient; an empty batch gives empty results."""
    layer = case.make()
    case.call(layer, case.inputs())
    for weight in layer.trainable_weights:
        if "bias" in weight.name:
            weight.assign(weight + 1.0)  # so that no ReLU is 0 for all inputs, whatever the initial values are
    for batch in (2, 0) if case.empty_batches else (2,):
        inputs = [tf.constant(value) for value in case.inputs(batch)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = case.call(layer, inputs)
            loss = tf.reduce_sum(tf.sin(outputs))
        assert tuple(outputs.shape) == tuple(case.call(layer.compute_output_shape, [value.shape for value in inputs]))
        gradients = tape.gradient(loss, [*inputs, *layer.trainable_weights])
        for value, gradient in zip([*inputs, *layer.trainable_weights], gradients):
            assert gradient is not None and tuple(gradient.shape) == tuple(value.shape)
            assert np.all(np.isfinite(gradient)) and (np.any(gradient) or batch == 0)


@every_case
def test_configuration(case):
    """The configuration has every argument of the constructor, survives JSON, and restores an equal layer."""
    layer = case.make(name="layer")
    config = layer.get_config()
    arguments = set(inspect.signature(case.layer.__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(config)
    for name, value in case.arguments.items():
        if not name.endswith(NAMED_OPTIONS):
            assert config[name] in (value, (value, value)), name

    assert json.dumps(case.layer.from_config(config).get_config()) == json.dumps(config)
    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"] == f"keras_dynfilter>{case.layer.__name__}"
    restored = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(restored) is case.layer
    assert json.dumps(restored.get_config()) == json.dumps(config)


@every_case
def test_files_and_clones(case, tmp_path):
    """Saved and loaded models, and clones with the same weights, compute bit-identical outputs."""
    model = case.model()
    inputs = case.inputs()
    inputs = inputs if len(inputs) > 1 else inputs[0]
    for weight in model.weights:  # so that they differ from the initial values
        weight.assign(weight + 0.5)
    expected = model(inputs)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    from_weights = case.model()
    from_weights.load_weights(tmp_path / "model.weights.h5")
    clone.set_weights(model.get_weights())
    for other in (loaded, clone, from_weights):
        np.testing.assert_array_equal(other(inputs), expected)
        np.testing.assert_allclose(other.losses, model.losses, rtol=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
def test_saved_models(cls, tmp_path):
    case = next(case for case in CASES.values() if case.layer is cls)
    model, inputs = case.model(), case.inputs()
    inputs = inputs if len(inputs) > 1 else inputs[0]
    model.export(str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    served = loaded.serve(tf.nest.map_structure(tf.constant, inputs))
    np.testing.assert_allclose(served, model(inputs), rtol=1e-5, atol=1e-5)


@every_case
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(case, policy):
    """Outputs have the policy's compute dtype and are close to float32; weights have the policy's variable dtype."""
    precise, layer = case.make(), case.make(dtype=policy)
    expected = case.call(precise, case.inputs())
    case.call(layer, case.inputs())
    layer.set_weights(precise.get_weights())
    outputs = case.call(layer, case.inputs())
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert {tf.as_dtype(weight.dtype).name for weight in layer.weights} <= {
        "float64" if policy == "float64" else "float32"
    }
    tolerance = 1e-5 if policy == "float64" else 0.1
    magnitude = np.std(expected) + np.mean(np.abs(expected))
    np.testing.assert_allclose(tf.cast(outputs, "float32"), expected, atol=tolerance * magnitude)


@every_case
@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_half_precision_weights(case, policy):
    """Layers with default initializers can have weights in half precision."""
    layer = case.make(dtype=policy)
    outputs = case.call(layer, case.inputs())
    assert outputs.dtype == policy and np.all(np.isfinite(tf.cast(outputs, "float32")))
    # Keras 2 keeps the weights of batch normalisation in float32.
    assert {tf.as_dtype(weight.dtype).name for weight in layer.weights} <= {policy, "float32"}


@every_case
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integer_inputs(case, dtype):
    """Integers are cast to the compute dtype."""
    layer = case.make()
    inputs = [np.abs(value * 4).astype(dtype) for value in case.inputs()]
    expected = case.call(layer, [value.astype("float32") for value in inputs])
    outputs = case.call(layer, inputs)
    assert outputs.dtype == "float32"
    np.testing.assert_array_equal(outputs, expected)


@every_case
@pytest.mark.parametrize("mode", ["int8", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("int4", "float8"))])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras names each layer that it cannot quantize
def test_quantized_models_can_be_loaded(case, mode, tmp_path):
    """`Model.quantize` leaves the layers that generate filters as they are, and quantizes the user's own layers."""
    model, inputs = case.model(), case.inputs()
    if not hasattr(model, "quantize"):
        pytest.skip(f"Keras {keras.__version__} cannot quantize")
    inputs = inputs if len(inputs) > 1 else inputs[0]
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    expected = model(inputs)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_docstring_example(cls):
    module = importlib.import_module(cls.__module__)
    results = doctest.testmod(module, extraglobs=dict(np=np, keras=keras, tf=tf), raise_on_error=True)
    assert results.attempted >= 2


def test_data_format_defaults_to_the_setting_of_keras():
    before = keras.backend.image_data_format()
    try:
        keras.backend.set_image_data_format("channels_first")
        defaults = {case.layer: case.make().data_format for case in CASES.values() if case.has_data_format}
        assert set(defaults.values()) == {"channels_first"}
    finally:
        keras.backend.set_image_data_format(before)
