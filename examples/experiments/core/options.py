# SPDX-License-Identifier: Apache-2.0
"""Command-line options of the experiments: argument types, groups of options, recipes.

A recipe is a set of defaults. Options take their value, in this order, from the command line, from `--smoke`, from the
recipe that `--recipe` chooses, and from the parser.
"""

import argparse
import copy
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from examples.experiments.core import distribution, optimizer
from keras_dynfilter.export import formats

PRECISIONS = {"none": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
# Ending of the name of an exported network, by format.
EXPORTS = {name: row.suffix or f"_{name}" for name, row in formats.FORMATS.items()}
DATA_DIR = "folder of the data, by default $KERAS_DYNFILTER_DATA; it is searched for"  # for --help


def positive_int(text: str) -> int:
    """Argument type: an integer above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer above zero, received {text!r}")
    return value


def seed(text: str) -> int:
    """Argument type: an integer from 0 to 2**31 - 2."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**31 - 1:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**31 - 2, received {text!r}")
    return value


def positive_float(text: str) -> float:
    """Argument type: a finite number above zero."""
    return _number(text, "number above zero", lambda value: value > 0)


def fraction(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    return _number(text, "number from 0 to 1", lambda value: 0 <= value <= 1)


def finite(text: str) -> float:
    """Argument type: a finite number."""
    return _number(text, "finite number", lambda value: True)


def _number(text: str, expected: str, allowed: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise argparse.ArgumentTypeError(f"expected a {expected}, received {text!r}")
    return value


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Formats help: the description unchanged, defaults as they are typed, and no default where there is none."""

    def _get_help_string(self, action):
        switch = action.nargs == 0 and action.const is not None
        none = switch or action.default is False or action.default in (None, [])
        return action.help if none else super()._get_help_string(action)

    def _expand_help(self, action):
        shown = copy.copy(action)
        if isinstance(action.default, list) and action.default:
            shown.default = " ".join(map(as_typed, action.default))
        return super()._expand_help(shown)

    def _get_default_metavar_for_optional(self, action):
        names = {positive_int: "N", seed: "N", positive_float: "X", float: "X", finite: "X", fraction: "FRACTION"}
        return names.get(action.type) or super()._get_default_metavar_for_optional(action)


def as_typed(value: Any) -> str:
    """Returns a value of a list as it is typed on the command line."""
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)


def new_parser(doc: str) -> argparse.ArgumentParser:
    """Returns a parser without options.

    Args:
        doc: Docstring of the script, for `--help`.
    """
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module and module.name.startswith("examples.") else None
    return argparse.ArgumentParser(
        prog=program, usage="%(prog)s [options]", description=doc, formatter_class=Help, allow_abbrev=False
    )


def new_training_parser(doc: str, out: str, recipes: Mapping[str, Any]) -> argparse.ArgumentParser:
    """Returns a parser with the options of the experiments that train a network and its baseline.

    Args:
        doc: Docstring of the script, which describes the recipes.
        out: Default of `--out`.
        recipes: Recipes, by name.
    """
    parser = new_parser(doc)
    add_recipe(parser.add_argument, recipes)
    parser.add_argument("--width", type=positive_float, default=1.0, help="factor of the channel counts of the network")
    add_run_options(parser, out)
    add_training_options(parser)
    return parser


def add_recipe(add: Callable, recipes: Mapping[str, Any]) -> None:
    """Adds `--recipe` with `add`, the method `add_argument` of a parser."""
    text = "set of defaults, described above; `--recipe RECIPE --help` shows them"
    add("--recipe", choices=recipes, default="reduced", help=text)


def add_run_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds the options of every experiment; `out` is the default of `--out`."""
    add = parser.add_argument_group("run").add_argument
    add("--seed", type=seed, default=0, help="seed of weights and data")
    add("--resume", action="store_true", help="continue the run in --out, which must have the same settings and data")
    add("--out", type=pathlib.Path, default=pathlib.Path(out), metavar="DIR", help="folder of all files written")
    add_export(add)
    add_smoke(add)


def add_export(add: Callable) -> None:
    """Adds `--export` with `add`, the method `add_argument` of a parser."""
    add("--export", nargs="+", default=[], choices=EXPORTS, help="export the trained networks, and validate the files")


def add_smoke(add: Callable) -> None:
    """Adds `--smoke` with `add`, the method `add_argument` of a parser."""
    add("--smoke", action="store_true", help="run a few steps at small sizes, to check the whole script quickly")


def add_deterministic(add: Callable) -> None:
    """Adds `--deterministic` with `add`, the method `add_argument` of a parser."""
    text = "use deterministic ops, so that a resumed run ends with the same bits as an uninterrupted one"
    add("--deterministic", action=argparse.BooleanOptionalAction, default=True, help=text)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of experiments that train for long, or on several devices."""
    add = parser.add_argument_group("training").add_argument
    add(
        "--baseline",
        nargs="?",
        const="too",
        choices=("too", "only"),
        help="also train the baseline, which has no dynamic filters; `only` trains it alone",
    )
    add("--iterations", type=positive_int, help="number of training steps")
    add("--batch-size", type=positive_int, help="examples per step, over all devices")
    add("--learning-rate", type=positive_float, help="highest learning rate of Adam")
    add("--baseline-learning-rate", type=positive_float, help="learning rate of the baseline, if it differs")
    add(
        "--schedule",
        choices=optimizer.SCHEDULES,
        help="schedule of the learning rate: `paper` halves it, `cosine` falls to zero after --warmup",
    )
    add("--halve-every", type=positive_int, default=4000, help="steps after which `--schedule paper` halves the rate")
    add("--warmup", type=fraction, default=0.02, help="fraction of the steps in which the rate rises")
    add("--clip-norm", type=positive_float, help="largest norm of the gradient; the paper has no limit")
    add(
        "--checkpoint-every", type=positive_int, default=200, help="steps per epoch; every epoch ends with a checkpoint"
    )
    add(
        "--time-limit",
        type=positive_float,
        metavar="MINUTES",
        help="stop the training of each network after this time; with --resume, the same command trains as long again",
    )
    add(
        "--strategy",
        choices=distribution.STRATEGIES,
        default="one",
        help="distribution strategy; multi-worker needs TF_CONFIG, and an --out that all workers share",
    )
    add("--mixed-precision", choices=PRECISIONS, default="none", help="compute dtype; variables stay in float32")
    add(
        "--jit-compile",
        action=argparse.BooleanOptionalAction,
        help="use XLA; by default on a GPU with --no-deterministic",
    )
    add_deterministic(add)
    add(
        "--steps-per-execution",
        type=positive_int,
        default=1,
        help="steps of one compiled call; the time limit is checked between calls",
    )


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    smoke: Mapping[str, Any],
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """Parses the options that choose defaults, and then, with these defaults, all options.

    Args:
        parser: A parser of `new_parser` with the options of the script.
        arguments: List of strings, or None for the arguments of the process.
        smoke: Defaults that `--smoke` sets, by name.
        recipes: Recipes, by name; the parser then has an option that sets `recipe`.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=parser.get_default("recipe"))
    first.add_argument("--full", dest="recipe", action="store_const", const="full")
    first.add_argument("--smoke", action="store_true")
    chosen, _ = first.parse_known_args(arguments)
    if recipes:
        parser.set_defaults(**recipes.get(chosen.recipe, {}))  # an unknown recipe is an error below
    if chosen.smoke:
        parser.set_defaults(**smoke)
    args = parser.parse_args(arguments)
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"argument --out: expected a folder, received the file {str(args.out)!r}")
    if getattr(args, "data_dir", None) and pathlib.Path(args.data_dir).expanduser().is_file():
        parser.error(f"argument --data-dir: expected a folder, received the file {args.data_dir!r}")
    for name in ("iterations", "checkpoint_every"):
        if (getattr(args, name, None) or 0) % getattr(args, "steps_per_execution", 1):
            option = "--" + name.replace("_", "-")
            parser.error(
                f"argument {option}: expected a multiple of --steps-per-execution {args.steps_per_execution}, "
                f"received {getattr(args, name)}"
            )
    if getattr(args, "time_limit", None) and args.strategy == "multi-worker":
        parser.error("argument --time-limit: expected one worker, since the clocks of several workers differ")
    return args
