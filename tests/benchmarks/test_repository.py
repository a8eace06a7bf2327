# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.repository_conv2d` and `repository_onnx`: candidates compute the same, bars tell, files are timed."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.export import filter_repository
from benchmarks.layers import repository_conv2d
from keras_dynfilter import models
from keras_dynfilter.layers import RepositoryConv2D


@pytest.mark.parametrize("strides", [1, 2])
def test_candidates_compute_the_same(strides):
    layer = RepositoryConv2D(4, 3, strides=strides)
    images, features = tf.random.normal((3, 6, 6, 2)), tf.random.normal((3, 5))
    expected = layer([images, features])
    grouped = repository_conv2d.grouped(images, layer.generated_filters(features), layer.geometry)
    np.testing.assert_allclose(grouped, expected, rtol=1e-4, atol=1e-5)
    candidates = repository_conv2d.candidates(layer, images, features)
    found = {name: function(*operands) for name, (function, operands) in candidates.items()}
    assert [each.shape for each in found["static"]] == [images.shape, (3, 3, 2, 4)]
    for name in ("ours", "materialised"):
        assert len(found[name]) == 2 + 3
        for ours, other in zip(found["ours"], found[name]):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["ours, coefficients given"][0], found["ours"][0], rtol=1e-4, atol=1e-5)


def rows(layer, ours, peak=25.0, filters=100.0):
    held = dict(activations_mb=5.0, coefficients_mb=2.0, weights_mb=3.0, filters_mb=filters)
    ms = {"static": 10.0, "ours": ours, "ours, coefficients given": 11.0, "materialised": 150.0}
    return [dict(layer=layer, candidate=name, ms=value, peak_mb=peak, **held) for name, value in ms.items()]


def test_bars():
    lines = repository_conv2d.bars(rows(1, 14.0) + rows(2, 20.0, peak=26.0))
    assert lines == [
        "layer 1: ours: 1.40 of static, at most 1.6: met",
        "layer 1: ours, coefficients given: 1.10 of static, at most 1.6: met",
        "layer 1: 10.7 times faster than materialised, at least 10: met",
        "layer 2: ours: 2.00 of static, at most 1.6: MISSED",
        "layer 2: ours, coefficients given: 1.10 of static, at most 1.6: met",
        "layer 2: 7.5 times faster than materialised, at least 10: MISSED",
        "all: ours: 1.70 of static, at most 1.6: MISSED",
        "all: ours, coefficients given: 1.10 of static, at most 1.6: met",
        "all: 8.8 times faster than materialised, at least 10: MISSED",
        "layer 1: 2.5 times the memory of activations, coefficients and weights, at most 2.5: met",
        "layer 2: 2.6 times the memory of activations, coefficients and weights, at most 2.5: MISSED",
    ]
    assert len(repository_conv2d.bars(rows(1, 14.0, peak=None))) == 6
    assert len(repository_conv2d.bars(rows(1, 14.0, filters=9.0))) == 6  # memory that holds them would not show it


def test_layers_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(repository_conv2d, "LAYERS", ((6, 3, 4, 1, 5),) * 4)
    monkeypatch.setattr(
        repository_conv2d.measure, "peak_mb", lambda call: float(len(call.args[0]))
    )  # images of the call
    path = tmp_path / "new" / "rows.jsonl"
    arguments = ["--batch-size", "4", "--layer", "2", "--seconds", "0.01", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["repository", *arguments])
    repository_conv2d.main()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["candidate"] for row in rows] == ["static", *repository_conv2d.OURS, "materialised"]
    for row in rows:
        assert row["layer"] == 2 and row["ms"] > 0
        assert (row["peak_mb"], row["peak_mb_of_half"]) == (4, 2)
    assert "layer 2: ours: " in capsys.readouterr().out


def test_refuses(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["repository", "--batch-size", "0"])
    with pytest.raises(SystemExit):
        repository_conv2d.main()
    assert "Expected --batch-size to be above zero. Received: 0" in capsys.readouterr().err


@pytest.fixture
def tiny_networks(monkeypatch):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    tiny = lambda: models.repository_mnist(encoder_channels=2, base_filters=2)  # noqa: E731
    monkeypatch.setattr(filter_repository, "NETWORKS", {"mnist": (tiny, models.repository_mnist_baseline)})


def test_onnx_networks_are_timed_beside_both_parts(tiny_networks, tmp_path, monkeypatch, capsys):
    calls, ms = [], iter([9.0, 2.0, 4.0, 3.0, 21.0, 10.0, 10.0, 1.0])

    def in_turns(given):
        calls.extend(call() for call in given.values())
        return {name: next(ms) for name in given}

    monkeypatch.setattr(filter_repository.measure, "in_turns", in_turns)
    arguments = ["--batch-size", "1", "3", "--threads", "1", "--json", str(tmp_path / "found")]
    monkeypatch.setattr("sys.argv", ["repository_onnx", *arguments])
    filter_repository.main()
    rows = [json.loads(line) for line in (tmp_path / "found").read_text().splitlines()]
    assert [(row["network"], row["batch"], row["of_both"]) for row in rows] == [("mnist", 1, 1.5), ("mnist", 3, 1.05)]
    assert [row["of_all"] for row in rows] == [1.0, 1.0]
    assert [row["ms"] for row in rows] == [
        dict(network=9.0, twin=2.0, generator=4.0, coefficients=3.0),
        dict(network=21.0, twin=10.0, generator=10.0, coefficients=1.0),
    ]
    for row in rows:
        assert row["cpu"] and row["threads"] == 1 and {"keras", "tf2onnx", "onnxruntime"} <= set(row["versions"])
        for kind in ("onnx", "saved_model"):
            assert row[kind]["passed"] is True and 0.01 < row[kind]["megabytes"] < 1
    out = capsys.readouterr().out
    assert "mnist, batch 1: 1.50 of twin and autoencoder with features, at most 1.1: MISSED" in out
    assert "mnist, batch 3: 1.05 of twin and autoencoder with features, at most 1.1: met" in out
    assert f"mnist, validated: onnx {rows[0]['onnx']['megabytes']:.2f} MB, saved_model" in out
    shapes = [sorted(value.shape for value in found) for found in calls]  # what the files really return
    images, features = (28, 28, 1), (2,)
    for batch, (network, twin, generator, coefficients) in zip((1, 3), (shapes[:4], shapes[4:])):
        assert network == sorted([(batch, 10), (batch, *images)]) and twin == [(batch, 10)]
        assert generator == sorted([(batch, *features), (batch, *features), (batch, *images)])
        assert coefficients == [(batch, 5 * 2)] * 2  # filters, base filters


def test_onnx_refuses(monkeypatch, capsys):
    for option in ("--batch-size", "--threads"):
        monkeypatch.setattr("sys.argv", ["repository_onnx", option, "0"])
        with pytest.raises(SystemExit):
            filter_repository.main()
        assert f"Expected {option} to be above zero. Received: 0" in capsys.readouterr().err
