# SPDX-License-Identifier: Apache-2.0
"""Options and recipes: which value is used, the help, bad arguments."""

import pytest

from examples.experiments.core import options
from tests.support.toy_options import parsed


def test_arguments_override_smoke_and_smoke_overrides_the_recipe():
    assert (parsed().iterations, parsed().halve_every, parsed().checkpoint_every) == (100, 4000, 200)
    assert (parsed("--recipe", "b").iterations, parsed("--recipe", "b").halve_every) == (200, 50)
    assert parsed("--recipe", "b", "--iterations", "7").iterations == 7
    smoke = parsed("--smoke", "--recipe", "b", "--learning-rate", "3", "--checkpoint-every", "1")
    assert (smoke.iterations, smoke.halve_every, smoke.checkpoint_every, smoke.learning_rate) == (4, 50, 1, 3)


@pytest.mark.parametrize(
    "arguments, texts",
    [
        (["--help"], ["training steps (default: 100)", "(default: 4:2 5:3)", "halves the rate (default: 4000)"]),
        (
            ["--recipe", "b", "--help"],
            ["training steps (default: 200)", "(default: 3:1)", "halves the rate (default: 50)"],
        ),
        (["--recipe", "b", "--smoke", "--help"], ["training steps (default: 4)", "halves the rate (default: 50)"]),
    ],
)
def test_help_shows_the_defaults_of_the_recipe(capsys, monkeypatch, arguments, texts):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        parsed(*arguments)
    shown = capsys.readouterr().out
    assert not any(f"(default: {none})" in shown for none in (None, [], False))
    always = ("--iterations N", "--learning-rate X", "--warmup FRACTION", "over all devices (default: 8)")
    for text in (*always, *texts):
        assert text in shown


def test_script_without_recipes(capsys):
    made = options.new_parser("Trains.")
    made.add_argument("--epochs", type=options.positive_int, default=8, help="of the training")
    options.add_run_options(made, "toy")
    assert options.parse(made, ["--smoke"], {"epochs": 2}).epochs == 2
    made = options.new_parser("Trains.")
    made.add_argument("--epochs", type=options.positive_int, default=8, help="of the training")
    options.add_run_options(made, "toy")
    with pytest.raises(SystemExit):
        options.parse(made, ["--help"], {"epochs": 2})
    assert "--epochs N" in (shown := capsys.readouterr().out) and "of the training (default: 8)" in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--iterations", "0"], "--iterations: expected an integer above zero, received '0'"),
        (["--learning-rate", "inf"], "--learning-rate: expected a number above zero, received 'inf'"),
        (["--warmup", "2"], "--warmup: expected a number from 0 to 1, received '2'"),
        (["--seed", "-1"], "--seed: expected an integer from 0"),
        (["--time-limit", "soon"], "--time-limit: expected a number above zero, received 'soon'"),
        (["--smoke", "--iterations", "0"], "--iterations: expected an integer above zero, received '0'"),
        (["--recipe", "d"], "--recipe: invalid choice: 'd'"),
        (["--iter", "5"], "unrecognized arguments: --iter 5"),
        (["--steps-per-execution", "3"], "--iterations: expected a multiple of --steps-per-execution 3, received 100"),
        (["--time-limit", "1", "--strategy", "multi-worker"], "--time-limit: expected one worker"),
        (["--out", __file__], "--out: expected a folder, received the file"),
        (["--data-dir", __file__], "--data-dir: expected a folder, received the file"),
        (["--strategy", "all"], "--strategy: invalid choice: 'all'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parsed(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
