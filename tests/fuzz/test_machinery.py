# SPDX-License-Identifier: Apache-2.0
"""The fuzzer finds planted faults of every kind, makes their inputs small, and writes files that show them again."""

import json

import pytest

from tests.fuzz import campaign, failures, pool, shrink
from tests.fuzz.targets import Mode

MODULE = "tests.fuzz.planted"


class Planted(Mode):
    module = MODULE


def run(mode, tmp_path, monkeypatch, calls=60, **arguments):
    planted = Planted("planted", mode, 1.0, 20, calls)
    monkeypatch.setattr(campaign, "MODES", (planted,))
    found = campaign.Campaign(3, (planted,), tmp_path, show=lambda text: None, **arguments)
    found.run_calls()
    return found


@pytest.mark.parametrize(
    "mode, kind, text",
    [
        ("crashes", "crash", "SIGSEGV"),
        ("hangs", "hang", "no result after 0.2 s"),
        ("allocates", "unclear text", "MemoryError"),
        ("differs", "wrong value", "numbers are off"),
        ("mumbles", "unclear text", "ValueError: bad number"),
    ],
)
def test_a_fault_is_found_made_small_and_shown_again(mode, kind, text, tmp_path, monkeypatch):
    calls, seconds = (20, 0.2) if mode == "hangs" else (60, pool.SECONDS)
    found = run(mode, tmp_path, monkeypatch, calls, seconds=seconds)
    count = found.counts[f"planted.{mode}"]
    assert count.failed > 1 and count.calls + count.skipped == calls and count.accepted and count.refused
    (failure,) = found.failures.values()  # failures of one cause are one failure
    assert failure["kind"] == kind and text in failure["text"] and failure["times"] == count.failed
    (number,) = failure["input"]["numbers"]
    assert number > 900
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["input"] == failure["input"]
    (again,) = campaign.replay(path, seconds)
    assert again["kind"] == kind
    assert f"{count.failed} failures of 1 kinds, seed 3" in found.summary()


def test_memory_that_is_kept_is_a_failure(tmp_path, monkeypatch):
    found = run("keeps", tmp_path, monkeypatch, 160)
    assert [failure["kind"] for failure in found.failures.values()] == ["memory growth"]


def test_an_input_depends_on_seed_and_number_only():
    request = {"mode": "differs", "seed": 5}
    with pool.Worker(MODULE) as process:
        together = process.run({**request, "first": 0, "count": 40})["failures"]
        apart = [process.run({**request, "first": n, "count": 1})["failures"] for n in reversed(range(40))]
    assert together == [failure for found in reversed(apart) for failure in found]
    assert together


def test_shrinking_stops_at_the_limit():
    calls = []
    value = {"numbers": list(range(100))}
    assert shrink.shrink(value, lambda smaller: calls.append(smaller) or False, limit=7) == value
    assert len(calls) == 7 and value == {"numbers": list(range(100))}


@pytest.mark.parametrize(
    "text, clear",
    [
        ("Expected filters to have rank 4. Received shape [2]", True),
        ("Expected the result to be small. Received: 7", False),
        ("filters are bad", False),
        ("OOM when allocating", True),
    ],
)
def test_texts(text, clear):
    def check():
        failures.check_text(ValueError(text), ["filters"], ["^OOM"])

    if clear:
        check()
    else:
        with pytest.raises(failures.Failure):
            check()
