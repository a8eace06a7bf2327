# SPDX-License-Identifier: Apache-2.0
"""Makes a command line parser with recipes, for tests of options and runs."""

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
    toy_parser = options.new_parser("Trains.")
    toy_parser.add_argument("--recipe", choices=RECIPES, default="a")
    toy_parser.add_argument("--data-dir")
    toy_parser.add_argument("--pyramid", action="store_true")
    toy_parser.add_argument("--stages", nargs="+", default=[(4, 2), (5, 3)], help="of pairs")
    options.add_run_options(toy_parser, "toy")
    options.add_training_options(toy_parser)
    return toy_parser


def parsed(*arguments):
    """Parses command line arguments with `SMOKE` and `RECIPES`."""
    return options.parse(parser(), arguments, SMOKE, RECIPES)
