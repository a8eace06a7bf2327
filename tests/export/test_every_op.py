# SPDX-License-Identifier: Apache-2.0
"""Exports a model with an output for each op in every format, and compares the file with the Keras model."""

import keras
import numpy as np
import pytest

from keras_dynfilter import export
from tests.support import export_models as models

pytestmark = pytest.mark.legacy

# (format, ops, precision, dtype policy of the model) -> part of the reason for the tolerance in the report. Full int8
# has a larger tolerance, because rounding changes this random network more than a trained network.
FILES = {
    ("saved_model", "portable", None, "float32"): "float32",
    ("saved_model", "portable", None, "mixed_float16"): "float16",
    ("saved_model", "portable", None, "mixed_bfloat16"): "bfloat16",
    ("saved_model", "native", None, "float32"): "float32",
    ("saved_model", "native", None, "mixed_float16"): "float16",
    ("onnx", "portable", None, "float32"): "float32",
    ("onnx", "portable", None, "mixed_float16"): "float16",
    ("onnx", "native", None, "float32"): "float32",
    ("onnx", "native", None, "mixed_float16"): "float16",
    ("litert", "portable", "float32", "float32"): "float32",
    ("litert", "portable", "float16", "float32"): "weights are stored in",
    ("litert", "portable", "dynamic_int8", "float32"): "of the 256 steps of 8 bits",
    ("litert", "portable", "int8", "float32"): "as requested",
}


@pytest.fixture(scope="module")
def images():
    """Returns images of uniform random numbers, whose mean is about 0.5 at every size."""
    return [np.random.default_rng(seed).random((1, 12, 9, 4)).astype("float32") for seed in range(4)]


@pytest.fixture
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def _parameters():
    """Yields the rows of `FILES`. ONNX, half precision, float16 weights and dynamic int8 are slow, and marked so."""
    for row in FILES:
        format, _, precision, policy = row
        slow = format == "onnx" or policy != "float32" or precision in ("float16", "dynamic_int8")
        yield pytest.param(*row, marks=pytest.mark.slow if slow else (), id="-".join(filter(None, row)))


@pytest.mark.parametrize("format, ops, precision, policy", list(_parameters()), indirect=["policy"])
def test_every_op(format, ops, precision, policy, images, tmp_path, request):
    for module in export.FORMATS[format].modules:
        pytest.importorskip(module)
    if ops == "native":
        request.getfixturevalue("native_library" if format == "saved_model" else "ort_library")
    model = models.every_op()
    report = export.export(
        model,
        tmp_path / f"model{export.FORMATS[format].suffix}",
        format=format,
        ops=ops,
        precision=precision,
        representative_data=images if precision == "int8" else None,
        validate=export.Validation(
            tolerance=0.2 if precision == "int8" else None,
            sample_inputs=images[0],
            batch_sizes=(1, 2),
            image_sizes=((9, 12), (7, 5)),
        ),
        verbose=False,
    )
    assert report.passed and not report.validation.skipped and set(report.outputs) == set(model.output)
    assert report.inputs["image"] == ("float32", ["batch", "height", "width", 4])
    assert FILES[format, ops, precision, policy] in report.validation.reason
    assert report.precision == precision and len(report.validation.cases) == 3
    if precision in ("float16", "int8"):  # rounding must be visible
        assert max(check.max_rel for check in report.validation.outputs) > 1e-5
