# SPDX-License-Identifier: Apache-2.0
"""Layers of Keras next to a DDF2D: the table of docs/guide/export_layers.md, and the errors that name a layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export, layers
from tests.support import keras_layers
from tests.support import keras_layers_table as table

needs_the_layers = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15),
    reason="older versions of Keras lack layers of the list",
)


@needs_the_layers
def test_every_layer_of_keras_is_listed():
    """A layer that a new version of Keras adds has to get an example, or a reason why it has none."""
    listed = {getattr(keras.layers, name, None) for name in (*keras_layers.kinds(), *keras_layers.NOT_LISTED)}
    missing = {layer.__name__ for layer in keras_layers.public_layers() - listed}
    assert not missing
    assert not set(keras_layers.kinds()) & set(keras_layers.NOT_LISTED)


@needs_the_layers
def test_every_layer_is_in_the_table():
    """`python -m tests.support.keras_layers_table` writes the table."""
    for column, outcomes in table.documented().items():
        assert set(outcomes) == set(keras_layers.kinds()), column


@needs_the_layers
@pytest.mark.slow
@pytest.mark.parametrize("column", table.COLUMNS)
def test_the_table_is_true(column):
    """All layers that a format can hold are exported in one file. Each of the others is refused by name.

    ONNX files with native ops are made from a third of the layers: they differ from other ONNX files in the DDF2D only.
    """
    for module in export.FORMATS[table.COLUMNS[column][0]].modules:
        pytest.importorskip(module)
    documented = table.documented()[column]
    if column == "ONNX, native ops":
        documented = dict(list(documented.items())[::3])
    error = table.problem([name for name, exports in documented.items() if exports], column)
    assert error is None, table.sentence(error)
    for name in (name for name, exports in documented.items() if not exports):
        error = table.problem([name], column)
        assert error is not None, name
        assert f"({name})" in str(error), error


class Inner(keras.layers.Layer):
    """Holds a layer whose ops ONNX and LiteRT lack, inside the body of a loop or outside of it."""

    def __init__(self, in_loop, **kwargs):
        super().__init__(**kwargs)
        self.in_loop = in_loop
        self.gamma = Gamma(name="gamma")

    def call(self, inputs):
        if not self.in_loop:
            return self.gamma(inputs)
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.gamma(x)), [0, inputs])[1]


class Gamma(keras.layers.Layer):
    def call(self, inputs):
        return tf.math.igamma(tf.abs(inputs), 1.0)


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize(
    "in_loop, layer", [(False, r"'block/inner/gamma' \(Gamma\)"), (True, r"'block/inner' \(Inner\)")]
)
def test_the_error_names_the_layer(format, in_loop, layer, tmp_path):
    """By its path in the model. Ops in the body of a loop belong to the layer that holds the loop."""
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)
    image = keras.Input((8, 8, 4), name="image")
    block = keras.Sequential([layers.DDF2D(3), Inner(in_loop, name="inner")], name="block")
    path = tmp_path / f"model{export.FORMATS[format].suffix}"
    text = rf"lacks: Igamma \((\d, )?in the layer {layer}\)\. Export to 'saved_model', or leave these layers out"
    with pytest.raises(export.ExportError, match=text):
        export.export(keras.Model(image, block(image)), path, format)
    assert not list(tmp_path.iterdir())


def test_an_op_that_tf2onnx_fails_to_convert(tmp_path):
    """tf2onnx logs the failure and leaves the op in the file."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")

    class Spectrum(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.angle(tf.signal.rfft(inputs))

    values = keras.Input((8,), name="values")
    model = keras.Model(values, Spectrum(name="spectrum")(values))
    text = r"could not convert the op '.*rfft' of the layer 'spectrum' \(Spectrum\): ValueError: .* Export to '"
    with pytest.raises(export.ExportError, match=text):
        export.export(model, tmp_path / "m.onnx", "onnx", validate=False)


@pytest.mark.slow
@pytest.mark.parametrize("format", export.FORMATS)
def test_recurrent_layers_keep_their_setting(format, tmp_path):
    """In LiteRT they are unrolled if the number of steps is fixed, also inside a model inside of the model."""
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)
    inner = keras.Sequential([keras.layers.LSTM(3, return_sequences=True), keras.layers.GRU(2)], name="inner")
    steps = keras.Input((5, 4), name="steps")
    model = keras.Model(steps, inner(steps))
    path = tmp_path / f"model{export.FORMATS[format].suffix}"
    report = export.export(model, path, format, verbose=False)
    assert report.passed and not any(layer.unroll for layer in inner.layers)
    assert ("WHILE" in report.nodes) is False


@pytest.mark.slow
def test_recurrent_layers_with_an_open_number_of_steps_in_litert(tmp_path):
    pytest.importorskip("ai_edge_litert")
    steps = keras.Input((None, 4), name="steps")
    model = keras.Model(steps, keras.layers.LSTM(3, name="memory")(steps))
    text = r"could not convert the layer 'memory' \(LSTM\): a loop over an open number of steps and an open batch size"
    with pytest.raises(export.ExportError, match=text):
        export.export(model, tmp_path / "m.tflite", "litert")
    steps = keras.Input((None, 4), batch_size=2, name="steps")
    model = keras.Model(steps, keras.layers.LSTM(3, name="memory")(steps))
    assert export.export(model, tmp_path / "m.tflite", "litert", verbose=False).passed


class Resized(keras.layers.Layer):
    """Resizes images of any dtype."""

    def __init__(self, method, **kwargs):
        super().__init__(**kwargs)
        self.method = method

    def call(self, inputs):
        return tf.image.resize(inputs, (11, 7), self.method)


@pytest.mark.parametrize(
    "method, tolerance",
    [
        ("bilinear", None),
        pytest.param("nearest", None, marks=pytest.mark.slow),
        # TensorFlow takes the weights from a table of 1,024 values, onnxruntime computes them.
        ("bicubic", 2 / 1024),
    ],
)
def test_images_are_resized_to_the_same_size(method, tolerance, tmp_path):
    """7 / 12 as float32 is less than the quotient, so a runtime that multiplies by it would return 6 columns."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    image, photo = keras.Input((9, 12, 2), name="image"), keras.Input((9, 12, 2), name="photo", dtype="uint8")
    open_size = keras.Input((None, None, 2), name="open_size")
    outputs = [Resized(method, dtype=image.dtype)(image) for image in (image, open_size, photo)]
    model = keras.Model([image, open_size, photo], outputs)
    validation = export.Validation(tolerance=tolerance)
    assert export.export(model, tmp_path / "m.onnx", "onnx", validate=validation, verbose=False).passed


def test_sums_over_areas_are_refused_in_onnx(tmp_path):
    """tf2onnx itself would repeat the nearest pixel."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    image = keras.Input((8, 8, 2), name="image")
    model = keras.Model(image, keras.layers.Resizing(3, 3, "area", name="small")(image))
    with pytest.raises(export.ExportError, match=r"lacks: ResizeArea \(1, in the layer 'small' \(Resizing\)\)"):
        export.export(model, tmp_path / "m.onnx", "onnx", validate=False)


@pytest.mark.parametrize("format", export.FORMATS)
def test_python_functions_are_refused(format, tmp_path):
    """A file cannot hold them, but a SavedModel could hold their number in this process."""
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)

    class Outside(keras.layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(np.sort, [x], tf.float32), x.shape)

    values = keras.Input((3,), name="values")
    model = keras.Model(values, Outside(name="outside")(values))
    with pytest.raises(
        export.ExportError, match=r"Python functions.*: \w*PyFunc \(1, in the layer 'outside' \(Outside\)\)"
    ):
        export.export(model, tmp_path / f"m{export.FORMATS[format].suffix}", format, validate=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_texts(tmp_path):
    """Sample inputs may be texts, too."""
    texts = keras.Input((1,), dtype="string", name="texts")
    model = keras.Model(texts, keras.layers.TextVectorization(vocabulary=["a", "b"])(texts))
    validation = export.Validation(sample_inputs={"texts": np.array([["b a c"], ["a"]])})
    report = export.export(model, tmp_path / "m", validate=validation, verbose=False)
    assert report.passed and report.validation.cases[-1] == "3: 2x1"
