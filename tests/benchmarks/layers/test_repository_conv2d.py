# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.repository_conv2d`: the candidates agree, and targets are judged correctly."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import repository_conv2d
from keras_dynfilter.layers import RepositoryConv2D


@pytest.mark.parametrize("strides", [1, 2])
def test_candidates_agree(strides):
    layer = RepositoryConv2D(4, 3, strides=strides)
    images, features = tf.random.normal((3, 6, 6, 2)), tf.random.normal((3, 5))
    expected = layer([images, features])
    grouped = repository_conv2d.grouped(images, layer.generated_filters(features), layer.geometry)
    np.testing.assert_allclose(grouped, expected, rtol=1e-4, atol=1e-5)
    candidates = repository_conv2d.candidates(layer, images, features)
    gradients = {name: function(*operands) for name, (function, operands) in candidates.items()}
    assert [gradient.shape for gradient in gradients["static"]] == [images.shape, (3, 3, 2, 4)]
    for name in ("ours", "materialised"):
        assert len(gradients[name]) == 2 + 3
        for ours, other in zip(gradients["ours"], gradients[name]):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients["ours, coefficients given"][0], gradients["ours"][0], rtol=1e-4, atol=1e-5)


def rows(layer, ours, peak=25.0, filters=100.0):
    held = dict(activations_mb=5.0, coefficients_mb=2.0, weights_mb=3.0, filters_mb=filters)
    ms = {"static": 10.0, "ours": ours, "ours, coefficients given": 11.0, "materialised": 150.0}
    return [dict(layer=layer, candidate=name, ms=value, peak_mb=peak, **held) for name, value in ms.items()]


def test_targets():
    lines = repository_conv2d.report_targets(rows(1, 14.0) + rows(2, 20.0, peak=26.0))
    assert lines == [
        "layer 1: ours / static: 1.40, at most 1.6: met",
        "layer 1: ours, coefficients given / static: 1.10, at most 1.6: met",
        "layer 1: materialised / ours: 10.71, at least 10: met",
        "layer 2: ours / static: 2.00, at most 1.6: MISSED",
        "layer 2: ours, coefficients given / static: 1.10, at most 1.6: met",
        "layer 2: materialised / ours: 7.50, at least 10: MISSED",
        "all: ours / static: 1.70, at most 1.6: MISSED",
        "all: ours, coefficients given / static: 1.10, at most 1.6: met",
        "all: materialised / ours: 8.82, at least 10: MISSED",
        "layer 1: memory / activations, coefficients and weights: 2.50, at most 2.5: met",
        "layer 2: memory / activations, coefficients and weights: 2.60, at most 2.5: MISSED",
    ]
    assert len(repository_conv2d.report_targets(rows(1, 14.0, peak=None))) == 6
    # No target: such small filters of all samples could be in memory without exceeding the bound.
    assert len(repository_conv2d.report_targets(rows(1, 14.0, filters=9.0))) == 6


def test_layers_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(repository_conv2d, "LAYERS", ((6, 3, 4, 1, 5),) * 4)
    monkeypatch.setattr(timing, "peak_mb", lambda call: float(len(call.args[0])))  # the number of images in the call
    path = tmp_path / "new" / "rows.jsonl"
    arguments = ["--batch-size", "4", "--layer", "2", "--seconds", "0.01", "--json", str(path)]
    repository_conv2d.main(arguments)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["candidate"] for row in rows] == ["static", *repository_conv2d.OURS, "materialised"]
    for row in rows:
        assert row["layer"] == 2 and row["ms"] > 0
        assert (row["peak_mb"], row["peak_mb_of_half"]) == (4, 2)
    assert "layer 2: ours / static: " in capsys.readouterr().out
