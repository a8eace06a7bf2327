# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.filter_repository` exports, measures and reports a tiny network and its parts."""

import json

import pytest

from benchmarks import timing
from benchmarks.export import filter_repository
from keras_dynfilter import models


@pytest.fixture
def tiny_networks(monkeypatch):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    tiny = lambda: models.repository_mnist(encoder_channels=2, base_filters=2)  # noqa: E731
    monkeypatch.setattr(filter_repository, "NETWORKS", {"mnist": (tiny, models.repository_mnist_baseline)})


def test_networks_are_compared_with_their_parts(tiny_networks, tmp_path, monkeypatch, capsys):
    results, ms = [], iter([9.0, 2.0, 4.0, 3.0, 21.0, 10.0, 10.0, 1.0])

    def in_turns(parts):
        results.extend(call() for call in parts.values())
        return {name: next(ms) for name in parts}

    monkeypatch.setattr(timing, "in_turns", in_turns)
    filter_repository.main(["--batch-size", "1", "3", "--threads", "1", "--json", str(tmp_path / "rows")])
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["network"], row["batch"], row["of_both"]) for row in rows] == [("mnist", 1, 1.5), ("mnist", 3, 1.05)]
    assert [row["of_all"] for row in rows] == [1.0, 1.0]
    assert [row["ms"] for row in rows] == [
        dict(network=9.0, baseline=2.0, generator=4.0, coefficients=3.0),
        dict(network=21.0, baseline=10.0, generator=10.0, coefficients=1.0),
    ]
    for row in rows:
        assert row["cpu"] and row["threads"] == 1 and {"keras", "tf2onnx", "onnxruntime"} <= set(row["versions"])
        for format in ("onnx", "saved_model"):
            assert row[format]["passed"] is True and 0.01 < row[format]["megabytes"] < 1
    out = capsys.readouterr().out
    assert "mnist, batch 1: network / baseline and generator: 1.50, at most 1.1: MISSED" in out
    assert "mnist, batch 3: network / baseline and generator: 1.05, at most 1.1: met" in out
    assert f"mnist, validated: onnx {rows[0]['onnx']['megabytes']:.2f} MB, saved_model" in out
    shapes = [sorted(value.shape for value in outputs) for outputs in results]
    images, features = (28, 28, 1), (2,)
    for batch, (network, baseline, generator, coefficients) in zip((1, 3), (shapes[:4], shapes[4:])):
        assert network == sorted([(batch, 10), (batch, *images)]) and baseline == [(batch, 10)]
        assert generator == sorted([(batch, *features), (batch, *features), (batch, *images)])
        assert coefficients == [(batch, 5 * 2)] * 2  # filters, base filters
