# SPDX-License-Identifier: Apache-2.0
"""Trains networks on data sets of numbered steps, so that a training can stop and continue at any step."""

import contextlib
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from examples.experiments.core import checkpoint, distribution, exports, files
from examples.experiments.core.checkpointer import Checkpointer
from examples.experiments.core.divergence import FiniteLosses, StopIfNotFinite
from examples.experiments.core.optimizer import compile_with_adam
from examples.experiments.core.tensorboard import TensorBoard


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        network: The network, in float32 and without strategy.
        steps: Number of training steps.
        seconds: Wall time of the training, over all calls.
        history: Metrics of every epoch.
        processor_seconds: Processor time of the training, over all calls.
    """

    network: keras.Model
    steps: int
    seconds: float
    history: list[dict[str, float]]
    processor_seconds: float


class Trainer(keras.Model):
    """Wraps a network for `fit`, and calls it with arguments that may change during the training.

    Construct the network inside the scope of a strategy, but the trainer outside: Keras 3.15 builds a model that was
    constructed inside from a batch of data, which fails with several workers. The trainer still runs under the
    strategy, because `fit` is called inside the scope.

    Args:
        network: A built model.
        finite_losses: Records every loss, if given.
    """

    def __init__(self, network: keras.Model, finite_losses: FiniteLosses | None = None):
        super().__init__(name=f"train_{network.name}")
        self.network = network
        self.arguments = {}
        self.finite_losses = finite_losses

    def call(self, inputs, training=None):
        return self.network(inputs, **self.arguments)  # Keras passes `training` on

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        if self.finite_losses:
            self.finite_losses.record(loss)
        return loss

    def train_step(self, data):
        logs = super().train_step(data)
        if distribution.several_workers(tf.distribute.get_strategy()):
            return {name: value[None] for name, value in logs.items()}  # Keras averages them over a first axis
        return logs


def pieces(start: int, total: int, epoch: int, stages: Sequence[tuple[int, Any]]) -> list[tuple[int, int, Any]]:
    """Divides a training into calls of `fit`: each has whole epochs of one stage, or a part of one epoch.

    Args:
        start: First step.
        total: Number of steps of the whole training.
        epoch: Number of steps of an epoch.
        stages: Pairs `(first step, arguments)`.

    Returns:
        Triples `(first step, end step, arguments)`; the end step is not part of the piece.
    """
    whole = [-(-start // epoch) * epoch, total // epoch * epoch]  # whole epochs are between these steps
    marks = sorted({start, total, *(m for m in [*whole, *(s for s, _ in stages)] if start < m < total)})
    arguments = dict(stages)
    return [(a, b, arguments[max(s for s in arguments if s <= a)]) for a, b in itertools.pairwise(marks)]


def train(
    name: str,
    build: Callable[[], keras.Model],
    compile_model: Callable[[keras.Model], None],
    data: Callable[..., tf.data.Dataset],
    total: int,
    epoch: int,
    out: str | pathlib.Path,
    seed: int = 0,
    stages: Sequence[tuple[int, dict[str, Any]]] = ((0, {}),),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    time_limit: float | None = None,
    settings: dict[str, Any] | None = None,
) -> Trained:
    """Trains a network and saves the state of the training after every epoch.

    A training that is killed at any moment and resumed ends with the same bits as an uninterrupted training, if the
    machine is the same, the ops are deterministic, and the data of a step depend only on the number of the step.

    Args:
        name: Name of the files: the state is `{name}.checkpoint`, the trained network `{name}.keras`.
        build: Function that returns a new network. It is called with the random seed set.
        compile_model: Function that compiles the model it is given, a `Trainer` of the network.
        data: Function that returns a `tf.data.Dataset` of some steps. It takes the first step, the end step, which is
            not part of the data set, and the arguments of the stage as keywords.
        total: Number of steps.
        epoch: Number of steps between two checkpoints, and of each progress bar.
        out: Folder of the files.
        seed: Seed of the initial weights.
        stages: Pairs `(first step, arguments)`: keyword arguments that the network is called with from this step on,
            which is a multiple of `epoch`. Every stage is traced anew.
        callbacks: Keras callbacks. Their model is a `Trainer`; the network is its `network`.
        resume: Whether to continue from the state in `out`, if there is one.
        strategy: A `tf.distribute.Strategy`.
        time_limit: Seconds of training after which this call stops, after one step at the earliest; None: no limit.
        settings: Settings that the training depends on, by name, for JSON. The state records them, and a resumed
            training must have the same settings.

    Raises:
        checkpoint.SetupError: A stage does not start with an epoch, or the state is damaged or belongs to another
            training.
        divergence.DivergedError: A loss or a weight is not finite. The last state stays.
        distribution.LostWorkerError: Another worker has ended.
        files.WriteError: A file or a folder cannot be written, for example because the disk is full. The last state
            stays.
    """
    if any(first % epoch for first, _ in stages) or min(first for first, _ in stages) != 0:
        expected = f"Expected `stages` to start at 0 and at multiples of {epoch}"
        raise checkpoint.SetupError(f"{expected}. Received: stages={stages}")
    out = pathlib.Path(out)
    with files.writing(out, "folder"):
        out.mkdir(parents=True, exist_ok=True)
    scope = strategy.scope if strategy else contextlib.nullcontext
    keras.utils.set_random_seed(seed)
    with scope(), distribution.watching_workers(strategy):  # workers share the initial weights
        network, losses = build(), FiniteLosses()
    trainer = Trainer(network, losses)
    with scope(), distribution.watching_workers(strategy):
        compile_model(trainer)
        trainer.optimizer.build(network.trainable_variables)
        variables = [*network.variables, *trainer.optimizer.variables]
        path = out / f"{name}.checkpoint"
        chief = distribution.is_chief(strategy)
        checkpointer = Checkpointer(name, path, variables, time_limit, chief, settings)
        _restore_or_set_aside(checkpointer, resume, total)
        distribution.check_same_step(strategy, checkpointer.position, path)
        checkpointer.start_clocks()
        within_epochs = not distribution.several_workers(strategy)
        watchers = [StopIfNotFinite(losses, checkpointer, total, within_epochs), *callbacks, checkpointer]
        if chief:
            watchers.append(TensorBoard(out / "logs" / name))
        for first, end, arguments in pieces(checkpointer.position, total, epoch, stages):
            trainer.arguments, checkpointer.end = arguments, end
            losses.start(first)
            trainer.make_train_function(force=True)
            trainer.fit(
                data(first, end, **arguments),
                initial_epoch=first // epoch,
                epochs=-(-total // epoch),
                steps_per_epoch=min(epoch, end - first),
                callbacks=watchers,
                shuffle=False,
                verbose=_verbosity(chief),
            )
            if checkpointer.time_is_over():
                break
        seconds, processor_seconds = checkpointer.seconds, checkpointer.processor_seconds
    network = _float32_copy(network, build)
    if checkpointer.write:
        _save_model(network, out / f"{name}.keras")
    return Trained(network, checkpointer.position, seconds, checkpointer.history, processor_seconds)


def _restore_or_set_aside(checkpointer, resume, total):
    path = checkpointer.path
    if not path.exists():
        if resume:
            print(f"{path}: not found, so nothing is resumed; starts at step 0 of {total}.")
    elif resume:
        checkpointer.load(total)
        print(f"{path}: continues after step {checkpointer.position} of {total}.")
    elif checkpointer.write:
        with files.writing(path):
            checkpoint.set_aside(path)


def _verbosity(chief):
    if not chief:
        return 0
    return 1 if sys.stdout.isatty() else 2


def _float32_copy(network, build):
    """Copies the network without strategy, compiled state and mixed precision, to save, evaluate and export it."""
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        copy = build()
    finally:
        keras.mixed_precision.set_global_policy(policy)
    copy.set_weights(network.get_weights())
    return copy


def _save_model(model, path):
    with files.written_whole(path, path.suffix) as part:
        model.save(part)


def train_networks(
    experiment,
    networks: Mapping[str, Callable[[], keras.Model]],
    loss=None,
    data: Callable[..., tf.data.Dataset] | None = None,
    stages: Sequence[tuple[int, dict[str, Any]]] = ((0, {}),),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    compile_model: Callable[[keras.Model], None] | None = None,
) -> dict[str, Trained]:
    """Trains the networks that `--baseline` asks for, one after the other.

    Args:
        experiment: A `run.Experiment` that has the options of `options.add_training_options`, or at least the
            options that say how long to train.
        networks: Functions that return new networks, by name; the name of the baseline is `"baseline"`.
        loss: Keras loss of the models, which are compiled with Adam.
        data: As for `train`.
        stages: As for `train`.
        callbacks: Keras callbacks.
        compile_model: Function that compiles a model, instead of compiling it with Adam and `loss`.

    Returns:
        Trained networks, by name.
    """
    args, trained, chosen = experiment.args, {}, chosen_networks(experiment.args, networks)
    exports.check_export_paths(args, chosen)
    for name, build in chosen.items():
        limit = f", {args.time_limit:g} minutes at most" if args.time_limit else ""
        if experiment.chief:
            print(f"\nTraining {name}: {args.iterations} steps of {args.batch_size} examples{limit}.", flush=True)
        trained[name] = train(
            name,
            build,
            compile_model or compile_with_adam(args, loss, name == "baseline"),
            data,
            total=args.iterations,
            epoch=min(args.checkpoint_every, args.iterations),
            out=args.out,
            seed=args.seed,
            stages=stages,
            callbacks=callbacks,
            resume=args.resume,
            strategy=experiment.strategy,
            time_limit=60 * args.time_limit if args.time_limit else None,
            settings=experiment.settings,
        )
    return trained


def chosen_networks(args, networks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the networks, by name, that `--baseline` asks for."""
    if args.baseline == "only":
        return {"baseline": networks["baseline"]}
    return {name: build for name, build in networks.items() if args.baseline or name != "baseline"}
