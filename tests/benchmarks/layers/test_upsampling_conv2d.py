# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.layers.upsampling_conv2d`: its candidates agree, and it reports all cases."""

import json

import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.layers import upsampling_conv2d


def test_candidates_agree():
    ours, other = (call() for call in upsampling_conv2d.calls(2, 5, 4, 3).values())
    for result, expected in zip(tf.nest.flatten(ours), tf.nest.flatten(other)):
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-2)


def test_report(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(timing, "in_turns", lambda calls, budget: dict(zip(calls, (8.0, 42.0))))
    path = tmp_path / "new" / "times.jsonl"
    upsampling_conv2d.main(["--batch-size", "3", "--json", str(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["ms"]["UpSampling2D, Conv2D"] for row in rows] == [42.0] * len(upsampling_conv2d.CASES)
    assert "5x5, 3x14x14x20 to 1" in capsys.readouterr().out
