# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.ddf`: the candidates follow their formulas, and targets are judged correctly."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import ddf
from benchmarks.layers.chained import chained, repetitions

SHAPE = (2, 5, 6, 4)
TIMES = {
    "depth-wise": 1.0,
    "conv": 9.0,
    "DDF op": 0.5,
    "with projection": 1.25,
    "not normalised": 1.75,
    "DDF module": 2.0,
    "PAC": 50.0,
    "full dynamic": 40.0,
}


def windows(images):
    """Extracts windows, `[batch, height, width, tap, channels]`, with a plain loop."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    _, height, width, _ = images.shape
    return np.stack([padded[:, t // 3 : t // 3 + height, t % 3 : t % 3 + width] for t in range(9)], axis=3)


def test_candidates(monkeypatch):
    monkeypatch.setattr(ddf, "DAMPING", 0.5)
    rng = np.random.default_rng(0)
    candidates = ddf.candidates(SHAPE)
    assert set(candidates) == set(ddf.NAMES) == set(TIMES) and ddf.NAMES[0] == ddf.REFERENCE
    outputs, operands = {}, {}
    for name, candidate in candidates.items():
        operands[name] = [rng.standard_normal(shape).astype("float32") for shape in candidate.operands]
        outputs[name] = tf.function(candidate.apply)(*map(tf.constant, operands[name])).numpy()
        assert outputs[name].shape == SHAPE

    image, kernel = operands["conv"]
    np.testing.assert_allclose(
        outputs["conv"], np.einsum("nijtc,tcf->nijf", windows(image), kernel.reshape(9, 4, 4)), atol=1e-4
    )
    image, kernel = operands["depth-wise"]
    expected = np.einsum("nijtc,tc->nijc", windows(image), kernel.reshape(9, 4))
    np.testing.assert_allclose(outputs["depth-wise"], expected, atol=1e-4)
    image, channel, spatial = operands["DDF op"]
    expected = np.einsum("nijtc,ntc,nijt->nijc", windows(image), channel.reshape(2, 9, 4), spatial)
    np.testing.assert_allclose(outputs["DDF op"], expected, atol=1e-4)
    image, kernel, bias, channel = operands["with projection"]
    channel = channel.reshape(2, 9, 4) + 0.5 * image.mean(axis=(1, 2))[:, None]
    expected = np.einsum("nijtc,ntc,nijt->nijc", windows(image), channel, image @ (0.5 * kernel) + bias)
    np.testing.assert_allclose(outputs["with projection"], expected, atol=1e-4)
    (image,) = operands["not normalised"]
    np.testing.assert_allclose(outputs["not normalised"], windows(image).mean(axis=3), atol=1e-4)
    image, guide, kernel = operands["PAC"]
    similarity = np.exp(-0.5 * np.square(windows(guide) - guide[..., None, :]).sum(axis=-1))
    expected = np.einsum("nijtc,nijt,tcf->nijf", windows(image), similarity, kernel.reshape(9, 4, 4))
    np.testing.assert_allclose(outputs["PAC"], expected, atol=1e-4)
    image, filters = operands["full dynamic"]
    expected = np.einsum("nijtc,nijct->nijc", windows(image), filters.reshape(2, 5, 6, 4, 9))
    np.testing.assert_allclose(outputs["full dynamic"], expected, atol=1e-4)


def test_small_images_pass_several_times():
    shapes = [(32, size, size, 256) for size in (224, 56, 28, 14, 7)]
    assert [repetitions(shape) for shape in shapes] == [1, 1, 6, 20, 20]
    function = chained(lambda images, kernel: 2 * images + kernel, 3)
    assert function(1, 10) == 78


@pytest.mark.skipif(not timing.CPU_STATISTICS, reason="no statistics of TensorFlow's CPU allocator")
@pytest.mark.parametrize("name", ddf.NAMES)
def test_estimates_of_memory_are_not_too_low(monkeypatch, name):
    """With a low estimate, the benchmark would try a candidate that does not fit into the memory."""
    monkeypatch.setattr(timing, "median_ms", lambda call, **options: 1.0)
    shape = (2, 48, 48, 64)
    row = ddf.measure(name, shape, ddf.parse(["--json", "x"]), "CPU:0", limit=10)
    kernels = 9 * 64 * 64 * 4 / 2**20
    estimate = ddf.candidates(shape)[name].maps * np.prod(shape) * 4 / 2**20
    assert 0.4 * estimate < row["mib"] < 1.05 * estimate + 2 * kernels


def run(monkeypatch, tmp_path, *arguments, times=TIMES, growth=1.0):
    """Runs the benchmark with given times instead of measured times. Returns its rows by candidate."""
    candidates = ddf.candidates(SHAPE)
    count = {name: 1 if candidate.once else repetitions(SHAPE) for name, candidate in candidates.items()}
    queue = [count[name] * times[name] for name in ddf.NAMES if name in times]
    monkeypatch.setattr(timing, "median_ms", lambda call, **options: queue.pop(0))
    monkeypatch.setattr(timing, "peak_mb", lambda call, device: growth)
    path = tmp_path / "new" / "table.jsonl"
    ddf.main(["--shape", *map(str, SHAPE), "--json", str(path), *arguments])
    return {row["candidate"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_table_and_targets(monkeypatch, tmp_path, capsys):
    rows = run(monkeypatch, tmp_path)
    assert {name: row["ms"] for name, row in rows.items()} == TIMES
    assert (rows["conv"]["in_a_row"], rows["PAC"]["in_a_row"]) == (20, 1)
    image, spatial = 4 * np.prod(SHAPE), 4 * 2 * 5 * 6 * 9
    assert rows["DDF module"]["mib"] == pytest.approx((1e6 + image) / 2**20)
    assert rows["DDF op"]["mib"] == pytest.approx((1e6 + image + spatial + 4 * 2 * 9 * 4) / 2**20)
    out = capsys.readouterr().out
    assert "2x5x6x4: DDF op / depth-wise: 0.50, at most 0.6: met" in out
    assert "2x5x6x4: DDF module / depth-wise: 2.00, at most 1.5: MISSED" in out
    assert len(re.findall(r"\(at most depth-wise and the spatial filters\): .* MiB, at most .*: met", out)) == 2
    assert "PAC               50.000" in out and "50.00x" in out


def test_no_targets_with_xla(monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path, "--jit-compile")
    out = capsys.readouterr().out
    assert "No targets" in out and "at most" not in out


def test_target_of_the_memory():
    row = dict(shape=(1, 512, 512, 16), ms=1.0, item_bytes=4)
    rows = [{**row, "candidate": "depth-wise", "mib": 32.0}, {**row, "candidate": "DDF module", "mib": 41.5}]
    _, memory = ddf.report_targets(rows)
    assert memory.endswith("(at most depth-wise and the spatial filters): 41.50 MiB, at most 41.41: MISSED")
    rows[1]["mib"] = 41.0
    assert ddf.report_targets(rows)[1].endswith(": met")
    assert len(ddf.report_targets([{**row, "mib": None} for row in rows])) == 1
    assert ddf.report_targets([rows[0], {**rows[1], "ms": None}]) == []


def test_what_does_not_fit_is_left_out(monkeypatch, tmp_path, capsys):
    fits = {name: TIMES[name] for name in ("depth-wise", "conv")}
    monkeypatch.setattr(ddf, "free_gb", lambda: 3.5 * np.prod(SHAPE) * 4 / 1e9 / 0.8)
    rows = run(monkeypatch, tmp_path, "--only", "conv", "PAC", times=fits)
    assert list(rows) == ["depth-wise", "conv", "PAC"]
    assert rows["PAC"]["ms"] is None and "GB may be used" in rows["PAC"]["left_out"]
    assert "PAC           takes about 0 GB" in capsys.readouterr().out

    def exhausted(call, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(timing, "median_ms", exhausted)
    row = ddf.measure("conv", SHAPE, ddf.parse([]), "CPU:0", limit=1)
    assert row["left_out"] == "does not fit into the memory of the device"
