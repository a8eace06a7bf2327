# SPDX-License-Identifier: Apache-2.0
"""Runs the corpus and a fixed number of inputs of every target, with a fixed seed."""

import json

import pytest

from tests.fuzz import campaign
from tests.fuzz.targets import MODES

SEED = 1
TARGETS = tuple(dict.fromkeys(mode.target for mode in MODES))
NEEDS = {"onnx_files": "ort_library"}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_short_run(target, native_xla, request, tmp_path):
    if target in NEEDS:
        pytest.importorskip("onnxruntime")
        request.getfixturevalue(NEEDS[target])
    if target == "data_files":
        pytest.importorskip("av")
    run = campaign.Campaign(SEED, campaign.chosen([target]), tmp_path, show=lambda text: None)
    run.run_corpus()
    run.run_calls(0.5)
    texts = [f"{failure['kind']}: {failure['text']}\n{failure['input']}" for failure in run.failures.values()]
    assert not texts, "\n\n".join([run.summary(), *texts])
    for mode in run.modes:
        count = run.counts[mode.label]
        assert count.calls > mode.calls / 4 and count.accepted and count.refused, run.summary()


def test_the_corpus_belongs_to_targets():
    """Every input of the corpus names a mode of its target."""
    paths = [*campaign.CORPUS.glob("*.json")]
    assert paths
    for path in paths:
        names = {mode.name for mode in MODES if mode.target == path.stem}
        inputs = json.loads(path.read_text())
        assert inputs and {value["mode"] for value in inputs} <= names, path
