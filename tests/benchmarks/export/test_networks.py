# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.networks` exports a small network, measures the files and compares their outputs."""

import json

import keras
import numpy as np
import pytest

from benchmarks.export import networks as benchmark

pytestmark = pytest.mark.legacy


def test_forms_are_exported_run_and_compared(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    image = keras.Input((8, 8, 2), name="image")
    model = keras.Model(image, keras.layers.Conv2D(3, 3, name="edges")(image), name="small")
    monkeypatch.setattr(benchmark, "NETWORKS", {"small": lambda: model})
    benchmark.main(["--only", "small", "--forms", "SavedModel", "ONNX", "--seconds", "0.01", "--out", str(tmp_path)])
    keras_row, *rows = map(json.loads, (tmp_path / "table.jsonl").read_text().splitlines())
    assert keras_row["form"] == benchmark.KERAS and keras_row["ms"] > 0 and "error" not in keras_row
    assert [row["form"] for row in rows] == ["SavedModel", "ONNX"]
    assert all(row["error"] < 1e-5 and row["ms"] > 0 and 0 < row["megabytes"] < 1 for row in rows)
    assert (tmp_path / "small.onnx").is_file() and "| small | ONNX |" in (tmp_path / "table.md").read_text()

    def fail(*_, **__):
        raise ValueError("it cannot be\nwritten")

    monkeypatch.setattr(benchmark.export, "export", fail)
    benchmark.main(["--only", "small", "--forms", "ONNX", "--out", str(tmp_path)])
    assert "| small | ONNX |  |  | it cannot be |" in capsys.readouterr().out


def test_the_error_is_the_largest_error_of_all_outputs():
    expected = {"a": np.array([1.0, -4.0]), "b": np.zeros(2)}
    assert benchmark.relative_error({"a": np.array([1.0, -3.0]), "b": np.array([0.0, 0.1])}, expected) == 0.25
    with pytest.raises(ValueError, match=r"Expected the outputs a, b\. Received: a"):
        benchmark.relative_error({"a": np.zeros(2)}, expected)


def test_the_network_with_ddf_up_keeps_the_size():
    assert benchmark.ddf_up_net((16, 12, 3), channels=8).output.shape == (None, 16, 12, 1)
