# SPDX-License-Identifier: Apache-2.0
"""A parser with recipes, for tests of options and runs."""

from examples.experiments.core import options

RECIPES = {
    "a": {"iterations": 100, "batch_size": 8, "learning_rate": 0.1, "schedule": "cosine"},
    "b": {
        "iterations": 200,
        "batch_size": 8,
        "learning_rate": 0.2,
        "schedule": "paper",
        "halve_every": 50,
        "clip_norm": 2.0,
        "stages": [(3, 1)],
    },
}
RECIPES["c"] = {**RECIPES["a"], "clip_norm": 2.0}
SMOKE = {"iterations": 4, "checkpoint_every": 2}


def parser():
    made = options.new_parser("Trains.")
    made.add_argument("--recipe", choices=RECIPES, default="a")
    made.add_argument("--data-dir")
    made.add_argument("--pyramid", action="store_true")
    made.add_argument("--stages", nargs="+", default=[(4, 2), (5, 3)], help="of pairs")
    options.add_run_options(made, "toy")
    options.add_training_options(made)
    return made


def parsed(*arguments):
    """Parses arguments."""
    return options.parse(parser(), arguments, SMOKE, RECIPES)
