# SPDX-License-Identifier: Apache-2.0
"""A validation that needs too much memory is refused before anything is allocated."""

import keras
import numpy as np
import pytest

from keras_dynfilter import export
from keras_dynfilter.export.signature import model_signature
from keras_dynfilter.export.trace import trace
from keras_dynfilter.export.validation import memory_bound
from keras_dynfilter.untrusted import memory
from tests.export.test_cli import command
from tests.support import export_models as models

pytestmark = pytest.mark.legacy
PEAK = 2**31  # bytes that the process may need at most while it refuses


@pytest.fixture(autouse=True)
def peak_memory():
    """Checks that the peak of the memory of this process does not grow by as much as the refused sizes."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < PEAK


@pytest.fixture(scope="module")
def model():
    return models.local_filter()


def check(model, limit, **shapes):
    """Checks the memory of a validation of one case, given by the shapes of its inputs."""
    traced = trace(model, model_signature(model), "portable")
    memory_bound.check(traced, [shapes], export.Validation(memory_limit=limit))


@pytest.mark.parametrize("format", ["saved_model", "onnx"])
@pytest.mark.parametrize("size", [(1_000_000, 1_000_000), (60_000, 60_000), (2**31, 2**31), (1, 2**62)])
def test_huge_fixed_sizes(size, format, model, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    path = tmp_path / ("m.onnx" if format == "onnx" else "m")
    text = (
        r"Expected the validation to need at most .*, half of what is available\. Received: inputs 5x.*x4, which need"
    )
    with pytest.raises(export.ExportError, match=text):
        export.export(model, path, format, input_size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(2**31, 1), (60_000, 60_000), (1, 2**62)])
def test_huge_fixed_sizes_without_validation(size, model, tmp_path):
    with pytest.raises(
        export.ExportError, match=r"Expected the export to need at most .* Choose a smaller `input_size`"
    ):
        export.export(model, tmp_path / "m", input_size=size, validate=False)
    assert not list(tmp_path.iterdir())


def test_huge_sizes_of_the_settings(model, tmp_path):
    with pytest.raises(export.ExportError, match=r"inputs 2x1000000x1000000x4, which need at least 32 TB"):
        export.export(
            model, tmp_path / "m", validate=export.Validation(batch_sizes=[2], image_sizes=[(1_000_000, 1_000_000)])
        )


def test_the_limit_counts_values_between_inputs_and_outputs(model, tmp_path):
    """The inputs of 1 x 300 x 300 x 4 have 1.4 MB; the filters, 9 values per position, and the outputs have more."""
    text = r"at most 5 MB of memory\. Received: inputs 1x300x300x4, which need at least \d+(\.\d)? MB"
    with pytest.raises(export.ExportError, match=text):
        check(model, 5e6, image=(1, 300, 300, 4))
    check(model, 1e8, image=(1, 300, 300, 4))
    with pytest.raises(export.ExportError, match=r"at most 5 MB of memory\. Received: inputs 1x300x300x4, which"):
        settings = export.Validation(memory_limit=5e6, batch_sizes=[1], image_sizes=[(300, 300)])
        export.export(model, tmp_path / "m", validate=settings)


def test_large_values_of_a_model_with_small_inputs(tmp_path):
    x = keras.Input((8, 8, 1))
    model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(keras.layers.UpSampling2D(100_000)(x)))
    with pytest.raises(export.ExportError, match=r"need at least \d+(\.\d)? TB"):
        export.export(model, tmp_path / "m")


def test_weights_count():
    x = keras.Input((1000,), name="x")
    model = keras.Model(x, keras.layers.Dense(1000)(x))
    with pytest.raises(export.ExportError, match=r"which need at least 8\.\d+ MB"):
        check(model, 8e6, x=(5, 1000))
    check(model, 1e7, x=(5, 1000))


@pytest.mark.parametrize("limit", [0, -1, "1", float("nan"), float("inf"), True])
def test_wrong_limits(limit):
    with pytest.raises(ValueError, match="Expected `memory_limit` to be None or a positive number of bytes"):
        export.Validation(memory_limit=limit)


def test_default_limit_is_half_of_the_available_memory(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    assert memory_bound.limit(export.Validation()) == 500
    assert memory_bound.limit(export.Validation(memory_limit=7e3)) == 7000


def test_command_line(model, tmp_path, capsys):
    image = keras.Input((None, None, 2), name="image")
    keras.Model(image, keras.layers.Conv2D(3, 3)(image)).save(tmp_path / "m.keras")
    assert command(tmp_path / "m.keras", "--input-size", "1000000x1000000") == 1
    error = capsys.readouterr().err
    assert "inputs 5x1000000x1000000x2, which need at least" in error and "or set --memory-limit" in error
    assert command(tmp_path / "m.keras", "--memory-limit", "1e-5") == 1
    assert "at most 10 kB of memory. Received: " in capsys.readouterr().err
    for wrong in ("0", "-1", "nan", "inf", "much"):
        assert command(tmp_path / "m.keras", f"--memory-limit={wrong}") == 2
        assert "argument --memory-limit: expected a positive number" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_representative_data_that_are_not_finite(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    data = [np.ones((1, 8, 8, 4), "float32") for _ in range(3)]
    for value in (np.nan, np.inf):
        data[1][0, 0, 0, :2] = value
        expected = "to be finite numbers. Received: 2 NaN or infinite values of image in sample 1"
        for validate in (True, False):
            with pytest.raises(ValueError, match=expected):
                export.export(
                    model,
                    tmp_path / "m.tflite",
                    "litert",
                    validate=validate,
                    precision="int8",
                    representative_data=data,
                )
