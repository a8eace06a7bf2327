# SPDX-License-Identifier: Apache-2.0
"""The course of an experiment: options, settings that a resumed run must share, networks and twins, results.

How a script puts them together: `experiment.py`.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
import time

import keras
import tensorflow as tf

from examples.experiments.core import checkpoint, common, files, training
from keras_dynfilter import inspection
from keras_dynfilter.export import formats

PRECISIONS = {"none": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
SCHEDULES = ("paper", "cosine", "constant")
# What the name of a network is followed by, by format.
EXPORTS = {name: row.suffix or f"_{name}" for name, row in formats.FORMATS.items()}
# What a resumed run may change: it has no bearing on what is learned, or says only when to stop.
FREE = ("resume", "out", "data_dir", "export", "time_limit", "smoke", "baseline")


@dataclasses.dataclass
class Run:
    """An experiment under way."""

    args: argparse.Namespace
    settings: dict
    strategy: object
    began: float

    @property
    def chief(self):
        """Whether this process writes files and goes on after the training; all but one of several workers do not."""
        return training.is_chief(self.strategy)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is none, and the description as it is; numbers are N and X."""

    def _get_help_string(self, action):
        none = action.default is False or action.default in (None, [])
        return action.help if none else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        names = {common.positive_int: "N", common.seed: "N", common.positive_float: "X", common.share: "SHARE"}
        return names.get(action.type) or super()._get_default_metavar_for_optional(action)


def add_options(parser, out):
    """Adds the options of every experiment; `out` is the default of `--out`."""
    add = parser.add_argument_group("run").add_argument
    add("--seed", type=common.seed, default=0, help="of weights and data")
    add("--resume", action="store_true", help="continue the run in --out, which must have the same settings and data")
    add("--export", nargs="+", default=[], choices=EXPORTS, help="export what was trained, and validate it")
    add("--out", type=pathlib.Path, default=pathlib.Path(out), metavar="DIR", help="for all files written")
    add("--smoke", action="store_true", help="a few steps, to see in seconds that everything works")


def add_training_options(parser):
    """Adds the options of the experiments that train for long, or on several devices."""
    add = parser.add_argument_group("training").add_argument
    add(
        "--baseline",
        nargs="?",
        const="too",
        choices=("too", "only"),
        help="train the twin without dynamic filters too, to compare with; only: it alone",
    )
    add("--iterations", type=common.positive_int, help="training steps")
    add("--batch-size", type=common.positive_int, help="examples of a step, of all devices together")
    add("--learning-rate", type=common.positive_float, help="of Adam, the highest")
    add("--baseline-learning-rate", type=common.positive_float, help="that of the twin, if it is another")
    add(
        "--schedule",
        choices=SCHEDULES,
        help="of the learning rate: paper halves it every --halve-every steps, cosine falls to zero after --warmup",
    )
    add("--halve-every", type=common.positive_int, default=4000, help="steps")
    add("--warmup", type=common.share, default=0.02, help="of the steps, in which the rate rises")
    add("--clip-norm", type=common.positive_float, help="limit of the norm of the gradient; none in the paper")
    add("--checkpoint-every", type=common.positive_int, default=200, help="steps of an epoch, after which all is saved")
    add(
        "--time-limit",
        type=common.positive_float,
        metavar="MINUTES",
        help="end the training of a network after so many; the same command with --resume goes on for as many",
    )
    add(
        "--strategy",
        choices=training.STRATEGIES,
        default="one",
        help="of tf.distribute; multi-worker needs TF_CONFIG, and an --out that all workers see",
    )
    add("--mixed-precision", choices=PRECISIONS, default="none", help="dtype to compute in, beside float32")
    add(
        "--jit-compile",
        action=argparse.BooleanOptionalAction,
        help="use XLA; by default on a GPU, if --no-deterministic",
    )
    add_deterministic(add)
    add("--steps-per-execution", type=common.positive_int, default=1, help="steps between looks at the clock")


def add_deterministic(add):
    """Adds the option `--deterministic` by `add`, the method of a parser."""
    text = "deterministic ops, so that a resumed run ends with the same bits"
    add("--deterministic", action=argparse.BooleanOptionalAction, default=True, help=text)


def typed(value):
    """A value as it is typed on the command line; None stays None."""
    if isinstance(value, list):
        return " ".join(typed(item) for item in value)
    if isinstance(value, tuple):
        return ":".join(str(item) for item in value)
    return None if value is None else str(value)


def parse(parser, arguments, smoke, recipes=None):
    """Parses arguments. What is not given comes from `--recipe` where there are recipes, and else from the parser.

    Args:
        parser: An `argparse.ArgumentParser` with the options of `add_options`.
        arguments: List of strings, or None for those of the process.
        smoke: Values by name that `--smoke` sets, and that must not be given beside it.
        recipes: Values by name of every recipe; the parser has an option `--recipe` then.
    """
    recipes = recipes or {None: {}}
    names = {*smoke, *(name for values in recipes.values() for name in values)}
    defaults = {name: parser.get_default(name) for name in names}
    for name in names:  # only for --help, since the namespace below has a value for it
        users = {}
        for recipe, values in recipes.items():
            users.setdefault(typed(values.get(name, defaults[name])), []).append(recipe)
        shown = next(iter(users))
        if len(users) > 1:
            shown = ", ".join(f"{'/'.join(by)}={value}" for value, by in users.items() if value is not None)
        parser.set_defaults(**{name: shown})
    parser.formatter_class, parser.usage = Help, "%(prog)s [options]"
    args = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(names)))  # None: not given
    recipe = recipes[getattr(args, "recipe", None)]
    for name in sorted(names):
        given = getattr(args, name)
        if args.smoke and name in smoke:
            if given is not None:
                option = "--" + name.replace("_", "-")
                parser.error(f"argument {option}: not allowed with --smoke, which sets it to {smoke[name]}")
            setattr(args, name, smoke[name])
        elif given is None:
            setattr(args, name, recipe.get(name, defaults[name]))
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
        parser.error("argument --time-limit: expected one worker, since the clocks of several differ")
    return args


def begin(args, *, free=(), data=None):
    """Prepares TensorFlow, makes the folder, and writes down what the training depends on.

    Unless `--resume` is given, the states of an earlier run that lie in the folder are set aside.

    Args:
        args: What `parse` returned.
        free: Names of arguments that a resumed run may change beside those of `FREE`; it has to share the others.
        data: What was really loaded to train on, as for JSON, which a resumed run has to share too:
            `common.fingerprint` of it. None: what is loaded follows from the arguments.

    Returns:
        A `Run`.
    """
    began = time.perf_counter()
    if getattr(args, "deterministic", False):
        tf.config.experimental.enable_op_determinism()
    try:
        strategy = training.make_strategy(getattr(args, "strategy", "one"))
    except ValueError as error:
        sys.exit(f"--strategy: {error}")
    replicas = strategy.num_replicas_in_sync if strategy else 1
    if args.batch_size % replicas:
        sys.exit(f"--batch-size: expected a multiple of {replicas}, one part per device. Received: {args.batch_size}")
    keras.mixed_precision.set_global_policy(PRECISIONS[getattr(args, "mixed_precision", "none")])
    keras.utils.set_random_seed(args.seed)
    names = sorted(name for name in vars(args) if name not in (*FREE, *free))
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        chosen = check_settings(args, names, training.is_chief(strategy), data)
    except OSError as error:
        sys.exit(f"--out: expected a folder that can be written. Received: {args.out} ({error.strerror})")
    return Run(args, chosen, strategy, began)


def check_settings(args, names, write=True, data=None):
    """Writes down what the training depends on; a run that is taken up again must agree."""
    settings = {name: getattr(args, name) for name in names} | ({} if data is None else {"data": data})
    settings = json.loads(json.dumps(settings))  # as they are read again
    path = args.out / "settings.json"
    if args.resume and path.is_file():
        try:
            checkpoint.same_settings(checkpoint.read_settings(path), settings, path)
        except checkpoint.SetupError as error:
            sys.exit(f"{error}")
    if write:
        if not args.resume:  # all of them, before the settings change: else a later --resume could mix two runs
            for state in sorted(args.out.glob("*.checkpoint")):
                checkpoint.set_aside(state)
        files.write_json(path, settings)
    return settings


def learning_rate(args, baseline=False):
    """The learning rate or schedule of the arguments."""
    rate = args.baseline_learning_rate if baseline and args.baseline_learning_rate else args.learning_rate
    schedules = keras.optimizers.schedules
    if args.schedule == "paper":
        return schedules.ExponentialDecay(rate, args.halve_every, 0.5, staircase=True)
    if args.schedule == "cosine":
        warmup = min(math.ceil(args.warmup * args.iterations), args.iterations - 1)
        if not warmup:
            return schedules.CosineDecay(rate, args.iterations)
        return schedules.CosineDecay(0.0, args.iterations - warmup, warmup_target=rate, warmup_steps=warmup)
    return rate


def compile_with(args, loss, baseline=False):
    """A function that compiles a model: Adam as in the papers, with the learning rate of the arguments."""

    def compile_model(model):
        optimizer = keras.optimizers.Adam(
            learning_rate(args, baseline), epsilon=1e-8, global_clipnorm=args.clip_norm or None
        )
        jit = args.jit_compile
        if jit is None:
            jit = "auto" if args.strategy == "one" else False
        model.compile(optimizer, loss, jit_compile=jit, steps_per_execution=args.steps_per_execution)

    return compile_model


def chosen_networks(args, networks):
    """Those of `networks`, by name, that `--baseline` asks for; the twin is named `"baseline"`."""
    if args.baseline == "only":
        return {"baseline": networks["baseline"]}
    return {name: build for name, build in networks.items() if args.baseline or name != "baseline"}


def train_networks(run, networks, loss=None, data=None, stages=((0, {}),), callbacks=(), compile_model=None):
    """Trains the networks that `--baseline` asks for, one after the other.

    Args:
        run: A `Run` whose arguments have those of `add_training_options`, or those of them that say how long to train.
        networks: Functions that return new networks, by name; that of the twin is `"baseline"`.
        loss: Loss for Keras, of models that `compile_with` compiles.
        data: As for `training.train`.
        stages: As for `training.train`.
        callbacks: Keras callbacks.
        compile_model: Function that compiles a model, in place of `compile_with` and `loss`.

    Returns:
        `training.Trained` by name.
    """
    args, trained = run.args, {}
    for name, build in chosen_networks(args, networks).items():
        limit = f", {args.time_limit:g} minutes at most" if args.time_limit else ""
        if run.chief:
            print(f"\nTraining {name}: {args.iterations} steps of {args.batch_size}{limit}.", flush=True)
        try:
            trained[name] = training.train(
                name,
                build,
                compile_model or compile_with(args, loss, name == "baseline"),
                data,
                total=args.iterations,
                epoch=min(args.checkpoint_every, args.iterations),
                out=args.out,
                seed=args.seed,
                stages=stages,
                callbacks=callbacks,
                resume=args.resume,
                strategy=run.strategy,
                time_limit=60 * args.time_limit if args.time_limit else None,
                settings=run.settings,
            )
        except checkpoint.SetupError as error:
            sys.exit(f"{error}")
    return trained


def training_figures(trained):
    """What is to be known of a training beside its errors."""
    return {
        "parameters": inspection.count_parameters(trained.network),
        "iterations": trained.steps,
        "training_seconds": round(trained.seconds, 1),
        "processor_seconds": round(trained.processor_seconds, 1),
        "history": trained.history,
    }


def write_results(run, content):
    """Writes `results.json`: the circumstances of the run, its settings, and `content`; returns its path."""
    path = run.args.out / "results.json"
    head = {**common.circumstances(), "seed": run.args.seed, "settings": run.settings}
    files.write_json(path, {**head, **content, "seconds": round(time.perf_counter() - run.began, 1)})
    return path
