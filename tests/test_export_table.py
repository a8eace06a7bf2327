# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export_table`: what it exports, what it times, how it tells errors and failures."""

import json

import numpy as np
import pytest

from benchmarks import export_table, measure
from keras_dynfilter import export, models

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


@pytest.fixture
def small(monkeypatch):
    tiny = {"steerable": lambda: models.dfn_steerable(3, (8, 8, 1))}
    monkeypatch.setattr(export_table, "NETWORKS", tiny)


def test_table(native_library, ort_library, small, monkeypatch, tmp_path, capsys):
    timed = []
    monkeypatch.setattr(measure, "median_ms", lambda call, budget: timed.append(call()) or 7.5)
    forms = ["SavedModel", "ONNX", "ONNX, native ops, our library"]
    export_table.main(["--only", "steerable", "--forms", *forms, "--out", str(tmp_path)])
    rows = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert [row["form"] for row in rows] == [export_table.KERAS, *forms]
    assert len(timed) == 4 and all(row["ms"] == 7.5 for row in rows)
    assert all(row["megabytes"] > 0.04 and row["error"] < 1e-5 for row in rows[1:])
    assert (tmp_path / "dfn_steerable_native.onnx").is_file()
    assert "untrained weights" in (tmp_path / "table.md").read_text()
    assert "| steerable | SavedModel |" in capsys.readouterr().out


def test_a_form_that_fails_leaves_the_others(small, monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "median_ms", lambda call, budget: 1.0)
    write = export.export

    def refuse(model, path, **options):
        if options["format"] == "onnx":
            raise export.ExportError("no such op\nand more")
        return write(model, path, **options)

    monkeypatch.setattr(export_table.export, "export", refuse)
    export_table.main(["--only", "steerable", "--forms", "ONNX", "SavedModel", "--out", str(tmp_path)])
    _, onnx, saved = (json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines())
    assert onnx["problem"] == "no such op" and "ms" not in onnx and saved["error"] < 1e-5
    assert "| steerable | ONNX |  |  | no such op |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("change, worst", [(0.0, 0.0), (0.5, 0.125), (np.nan, np.nan)])
def test_error(change, worst):
    expected = {"a": np.array([1.0, -4.0]), "b": np.zeros(2)}
    np.testing.assert_equal(export_table.error({**expected, "a": expected["a"] + change}, expected), worst)
    with pytest.raises(ValueError, match=r"Expected the outputs a, b\. Received: a"):
        export_table.error({"a": expected["a"]}, expected)


def test_networks_of_the_table():
    names = ("moving MNIST", "steerable", "stereo", "DDF-ResNet50", "DDF-Up net", "repository MNIST")
    assert tuple(export_table.NETWORKS) == names
    net = export_table.ddf_up_net((16, 16, 3), 4)
    assert net.output_shape == (None, 16, 16, 1)
    assert [layer.name for layer in net.layers if type(layer).__name__ == "DDFUp2D"] == ["up_to_half", "up_to_full"]
