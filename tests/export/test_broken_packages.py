# SPDX-License-Identifier: Apache-2.0
"""A package that is installed but broken only fails the formats that need it."""

import pytest

CODE = """
import keras, sys
from keras_dynfilter import export
inputs = keras.Input((8, 8, 2))
model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
print(export.export(model, sys.argv[1], format="saved_model").passed)
try:
    export.export(model, sys.argv[1] + ".onnx", format="onnx")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_a_broken_package_fails_its_format_only(python, tmp_path, module):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / f"{module}.py").write_text("raise AttributeError('not for this version of protobuf')")
    done = python("-c", CODE, str(tmp_path / "model"), PYTHONPATH=str(tmp_path / "path"))
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-2] == "True"
    assert lines[-1].startswith(f"Export to onnx needs {module}, which is installed but cannot be imported: Attribute")
    assert "not for this version of protobuf" in lines[-1] and "keras_dynfilter[export]" in lines[-1]
