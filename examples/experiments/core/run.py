# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of an experiment: checks settings that a resumed run must share, writes results, exports networks.

A script parses its options, loads its data inside `preparing`, begins an `Experiment`, trains with
`training.train_networks`, returns if it is not `finished`, evaluates and draws, and ends with `conclude`.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.experiments.core import checkpoint, distribution, environment, exports, failures, files, options, training
from keras_dynfilter import inspection
from keras_dynfilter.export import formats

# Options that a resumed run may change: they do not change what a network learns; a time limit only stops it earlier.
FREE = ("resume", "out", "data_dir", "export", "time_limit", "smoke", "baseline")


@dataclasses.dataclass
class Experiment:
    """Holds what the steps of a running experiment share.

    Attributes:
        args: The options.
        settings: The settings that the training depends on, by name.
        strategy: The distribution strategy; None for one device.
        began: Reading of `time.perf_counter` at the start.
    """

    args: argparse.Namespace
    settings: dict[str, Any]
    strategy: tf.distribute.Strategy | None
    began: float

    @property
    def chief(self) -> bool:
        """Whether this process writes files and continues after the training; of several workers, only one does."""
        return distribution.is_chief(self.strategy)


@contextlib.contextmanager
def preparing(args: argparse.Namespace) -> Iterator[None]:
    """Ends the script with a one-line message if data, packages or workers are missing, before it trains.

    Args:
        args: The options. The packages for figures and for the formats of `--export` are checked before the block,
            which loads the data. The strategy is made before, too, since loaders may start TensorFlow.
    """
    make_strategy(args)
    try:
        inspection.new_figure(1, 1)
        for name in getattr(args, "export", []):
            formats.choose(name, "portable", None)
        yield
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{error}")


def make_strategy(args: argparse.Namespace) -> tf.distribute.Strategy | None:
    """Returns the strategy that the options ask for, or ends the script with a one-line message."""
    try:
        return distribution.make_strategy(getattr(args, "strategy", "one"))
    except ValueError as error:
        sys.exit(f"--strategy: {error}")


@contextlib.contextmanager
def writing_to_out(args: argparse.Namespace) -> Iterator[None]:
    """Ends the script with a one-line message if the block cannot write to the folder `--out`, and says why."""
    try:
        yield
    except files.WriteError as error:
        sys.exit(f"{error}")
    except OSError as error:
        reason = error.strerror or error
        if error.filename not in (None, str(args.out)):
            reason = f"{error.filename}: {reason}"
        sys.exit(f"--out: expected a folder that can be written. Received: {args.out} ({reason})")


def begin(args: argparse.Namespace, *, free: Sequence[str] = (), data: Any = None) -> Experiment:
    """Configures TensorFlow, makes the folder, and writes the settings that the training depends on.

    Checkpoints of an earlier run in the folder are set aside, unless `--resume` is given.

    Args:
        args: What `options.parse` returned.
        free: Names of options that a resumed run may change, in addition to `FREE`.
        data: Description of the loaded training data, for JSON, usually their `fingerprint`. A resumed run must have
            the same one. None if the options determine the data.
    """
    began = time.perf_counter()
    if getattr(args, "deterministic", False):
        tf.config.experimental.enable_op_determinism()
    strategy = make_strategy(args)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    if args.batch_size % replicas:
        sys.exit(f"--batch-size: expected a multiple of {replicas}, one part per device. Received: {args.batch_size}")
    keras.mixed_precision.set_global_policy(options.PRECISIONS[getattr(args, "mixed_precision", "none")])
    keras.utils.set_random_seed(args.seed)
    names = sorted(name for name in vars(args) if name not in (*FREE, *free))
    with writing_to_out(args):
        args.out.mkdir(parents=True, exist_ok=True)
        settings = _check_settings(args, names, distribution.is_chief(strategy), data)
    return Experiment(args, settings, strategy, began)


def _check_settings(args, names, write, data):
    """Writes the settings. A resumed run must have the settings of the earlier one."""
    settings = {name: getattr(args, name) for name in names} | ({} if data is None else {"data": data})
    settings = json.loads(json.dumps(settings))  # as JSON will return them
    path = args.out / "settings.json"
    if args.resume and path.exists():
        try:
            checkpoint.check_same_settings(checkpoint.read_settings(path), settings, path)
        except checkpoint.SetupError as error:
            sys.exit(f"{error}")
    if write:
        if not args.resume:
            # All checkpoints, before the settings change: otherwise, a later --resume could mix two runs.
            for state in sorted(args.out.glob("*.checkpoint")):
                checkpoint.set_aside(state)
        files.write_record(path, settings)
    return settings


def fingerprint(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns shape, dtype and checksum of each array as text, by name. The text differs for other data."""
    descriptions = {}
    for name, array in arrays.items():
        shape, checksum = " x ".join(map(str, array.shape)), zlib.crc32(np.ascontiguousarray(array))
        descriptions[name] = f"{shape}, {array.dtype}, CRC-32 {checksum:08x}"
    return descriptions


def finished(experiment: Experiment, trained: Mapping[str, training.Trained]) -> bool:
    """Returns whether this process should evaluate the networks. Prints a note if the time limit stopped a training.

    Args:
        experiment: The experiment.
        trained: Trained networks, by name.
    """
    if not experiment.chief:
        return False
    args = experiment.args
    unfinished = any(done.steps < args.iterations for done in trained.values())
    if unfinished:
        print_times(trained)
        again = "the same command" if args.resume else "the same command with --resume"
        print(f"Stopped before {args.iterations} iterations, so not evaluated: {again} continues.")
    return not unfinished


def print_times(trained: Mapping[str, training.Trained]) -> None:
    """Prints the training time of each network."""
    for name, done in trained.items():
        minutes = f"{done.seconds / 60:.1f} minutes, {done.processor_seconds / 60:.1f} minutes of processor time"
        print(f"{name}: {done.steps} iterations in {minutes}")


def training_figures(trained: training.Trained) -> dict[str, Any]:
    """Returns parameters, steps, times and metrics of a training, for the results."""
    return {
        "parameters": inspection.count_parameters(trained.network),
        "iterations": trained.steps,
        "training_seconds": round(trained.seconds, 1),
        "processor_seconds": round(trained.processor_seconds, 1),
        "history": trained.history,
    }


def save_figures(args: argparse.Namespace, figures: Mapping[str, Any]) -> list[str]:
    """Saves figures, which are given by the names of their files, in `--out`. Returns the names."""
    for name, figure in figures.items():
        path = args.out / name
        with files.written_whole(path, path.suffix) as part:
            figure.savefig(part, dpi=110)
    return [*figures]


def write_results(experiment: Experiment, content: Mapping[str, Any]):
    """Writes `results.json`: the circumstances of the run, its settings, and `content`. Returns its path."""
    path = experiment.args.out / "results.json"
    head = {**environment.describe(), "seed": experiment.args.seed, "settings": experiment.settings}
    files.write_json(path, {**head, **content, "seconds": round(time.perf_counter() - experiment.began, 1)})
    return path


def conclude(
    experiment: Experiment, trained: Mapping[str, training.Trained], content: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Writes the results and exports the networks; prints the training times, the files, and what to do next.

    Args:
        experiment: The experiment.
        trained: Trained networks, by name.
        content: Results of the script, by name, for JSON.
        names: Names of the files in `--out` that the script has written.
    """
    args = experiment.args
    print_times(trained)
    content = {"training": {name: training_figures(done) for name, done in trained.items()}, **content}
    write_results(experiment, content)  # before the exports: if one fails, no figures are lost
    reports = {name: exports.write_exports(args, name, done.network) for name, done in trained.items()}
    path = write_results(experiment, {**content, "exports": reports})
    print(f"\nFiles in {args.out}: {', '.join([*names, path.name, *(f'{name}.keras' for name in trained)])}")
    for name in trained:
        exports.print_exports(args, name)
    if not args.baseline:
        print("Next: compare it with the baseline: the same command with --resume --baseline")


def run_script(main: Callable[[], int], again: str = "The same command with --resume") -> None:
    """Ends the process with the status that `main` returns, or with one sentence (`failures.one_sentence`)."""
    with failures.one_sentence(again):
        sys.exit(main())
