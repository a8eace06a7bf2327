# SPDX-License-Identifier: Apache-2.0
"""Trains a network from a data set of numbered steps, so that it can be stopped and taken up at any of them."""

import collections
import contextlib
import itertools
import os
import pathlib
import sys
import time

import keras
import tensorflow as tf

from examples.experiments.core import checkpoint, files

STRATEGIES = ("one", "mirrored", "multi-worker")

Trained = collections.namedtuple("Trained", "network steps seconds history processor_seconds")


class Trainer(keras.Model):
    """What is fitted in place of a network, which it calls with arguments that may change during the training.

    It must be constructed outside the scope of a strategy, and the network inside. Keras 3.15 builds a model that was
    constructed inside from a batch of data, which fails with several workers; fitted inside the scope, this one runs
    under the strategy all the same.

    Args:
        network: A built model.
    """

    def __init__(self, network):
        super().__init__(name=f"train_{network.name}")
        self.network = network
        self.arguments = {}

    def call(self, inputs, training=None):
        return self.network(inputs, **self.arguments)  # Keras hands `training` on

    def train_step(self, data):
        logs = super().train_step(data)
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            return {name: value[None] for name, value in logs.items()}  # Keras averages them over a first axis
        return logs


def make_strategy(name):
    """The `tf.distribute.Strategy` of a name; None for `"one"`.

    Raises:
        ValueError: `TF_CONFIG` does not describe a cluster for `"multi-worker"`.
    """
    if name == "one":
        return None
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if not resolver.cluster_spec().as_dict():
        expected = "Expected the variable TF_CONFIG to describe the cluster and the task of this process"
        raise ValueError(f"{expected}. Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}")
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def is_chief(strategy):
    """Whether this process writes files: always, except for all workers but one."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" or (not has_chief and (resolver.task_type, resolver.task_id) == ("worker", 0))


class Keeper(keras.callbacks.Callback):
    """Counts steps and seconds, saves the state after every epoch, and stops when the time is over.

    Attributes:
        settings: What a resumed training must share, as for JSON; None: not known, not checked.
        position: Number of steps that were taken, over all calls.
        end: Number of steps after which a call of `fit` ends, whatever the number of its epochs, which is displayed.
        seconds: Wall time of the training up to now, over all calls; what was lost by a kill is not in it.
        processor_seconds: The same of the time of all processors that this process used.
        history: The metrics of every epoch.
    """

    def __init__(self, path, variables, limit=None, write=True, settings=None):
        super().__init__()
        self.path, self.variables, self.limit, self.write, self.settings = path, variables, limit, write, settings
        self.position, self.end, self.history = 0, 0, []
        self.seconds_before = self.processor_before = 0.0
        self.begin()

    def begin(self):
        """Starts the clocks of this call."""
        self.began, self.processor_began = time.perf_counter(), time.process_time()

    @property
    def seconds(self):
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def processor_seconds(self):
        return self.processor_before + time.process_time() - self.processor_began

    def over(self):
        return self.limit is not None and time.perf_counter() - self.began >= self.limit

    def load(self):
        arrays, notes = checkpoint.load(self.path)
        if None not in (notes.get("settings"), self.settings):
            checkpoint.same_settings(notes["settings"], self.settings, self.path)
        checkpoint.restore(self.variables, arrays, self.path)
        self.position, self.seconds_before, self.history = notes["position"], notes["seconds"], notes["history"]
        self.processor_before = notes.get("processor_seconds", 0.0)  # states of old do not say

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_start = self.position

    def on_train_batch_end(self, batch, logs=None):
        self.position = self.epoch_start + batch + 1
        if self.limit is None:
            return
        float(logs["loss"])  # waits for the device, else the clock would be ahead of the training
        if self.over():
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        seconds = round(self.seconds, 3)
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.history = [*self.history, {"step": self.position, "seconds": seconds, **metrics}]
        if self.write:
            notes = {"position": self.position, "seconds": seconds, "history": self.history, "settings": self.settings}
            notes["processor_seconds"] = round(self.processor_seconds, 3)
            checkpoint.save(self.path, [variable.numpy() for variable in self.variables], notes)
        if self.position >= self.end:
            self.model.stop_training = True


def pieces(start, total, epoch, stages):
    """Cuts a training into calls of `fit`: whole epochs of one stage, or a part of one epoch.

    Args:
        start: Step to start with.
        total: Step to end before.
        epoch: Steps of an epoch.
        stages: Pairs `(first step, arguments)`.

    Returns:
        Triples `(first step, step to end before, arguments)`.
    """
    whole = [-(-start // epoch) * epoch, total // epoch * epoch]  # whole epochs lie between
    marks = sorted({start, total, *(m for m in [*whole, *(s for s, _ in stages)] if start < m < total)})
    arguments = dict(stages)
    return [(a, b, arguments[max(s for s in arguments if s <= a)]) for a, b in itertools.pairwise(marks)]


def train(
    name,
    build,
    compile_model,
    data,
    total,
    epoch,
    out,
    seed=0,
    stages=((0, {}),),
    callbacks=(),
    resume=False,
    strategy=None,
    time_limit=None,
    settings=None,
):
    """Trains a network and saves the state of the training after every epoch.

    A training that was killed at any moment and is resumed ends with the same bits as one that was not, given the same
    machine, if the ops are deterministic and the data of a step depend on the number of the step alone.

    Args:
        name: Names the files: the state is `{name}.checkpoint`, the trained model `{name}.keras`.
        build: Function that returns a new network. It is called with the random seed set.
        compile_model: Function that compiles the model that it is given, which is not the network but calls it.
        data: Function of the step to start with, the step to end before, and the arguments of the stage as keywords;
            returns a `tf.data.Dataset` of these steps.
        total: Number of steps.
        epoch: Number of steps between two states, also of a line or a bar of progress.
        out: Folder.
        seed: Seed of the initial weights.
        stages: Pairs of a step, a multiple of `epoch`, and the keyword arguments with which the network is called from
            there on. Every stage is traced anew.
        callbacks: Keras callbacks. Their model is a `Trainer`; the network is its `network`.
        resume: Continue from the state that lies in `out`, if there is one.
        strategy: A `tf.distribute.Strategy`.
        time_limit: Stop after this many seconds of training in this call; those before a resumption do not count. A
            step is taken at least.
        settings: What the training depends on, by name, as for JSON. It is kept in the state, and a training that is
            resumed must share it.

    Returns:
        `Trained(network, steps, seconds, history, processor_seconds)`: the network in float32 and without strategy, the
        number of steps and seconds it was trained for, metrics by epoch, and the time of the processors.

    Raises:
        checkpoint.SetupError: A stage does not start with an epoch, or the state belongs to another model or to other
            settings.
    """
    if any(first % epoch for first, _ in stages) or min(first for first, _ in stages) != 0:
        expected = f"Expected `stages` to start at 0 and at multiples of {epoch}"
        raise checkpoint.SetupError(f"{expected}. Received: stages={stages}")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.checkpoint"
    scope = strategy.scope if strategy else contextlib.nullcontext
    keras.utils.set_random_seed(seed)
    with scope():
        network = build()
    trainer = Trainer(network)
    with scope():
        compile_model(trainer)
        trainer.optimizer.build(network.trainable_variables)
        variables = [*network.variables, *trainer.optimizer.variables]
        keeper = Keeper(path, variables, time_limit, is_chief(strategy), settings)
        _take_up(keeper, resume, total)
        keeper.begin()
        watchers = [*callbacks]
        if is_chief(strategy):
            watchers.append(keras.callbacks.TensorBoard(str(out / "logs" / name), write_graph=False))
        for first, end, arguments in pieces(keeper.position, total, epoch, stages):
            trainer.arguments, keeper.end = arguments, end
            trainer.make_train_function(force=True)
            trainer.fit(
                data(first, end, **arguments),
                initial_epoch=first // epoch,
                epochs=-(-total // epoch),
                steps_per_epoch=min(epoch, end - first),
                callbacks=[*watchers, keeper],
                shuffle=False,
                verbose=_verbosity(strategy),
            )
            if keeper.over():
                break
        seconds, processor_seconds = keeper.seconds, keeper.processor_seconds
    network = _plain_copy(network, build)
    if keeper.write:
        _save_model(network, out / f"{name}.keras")
    return Trained(network, keeper.position, seconds, keeper.history, processor_seconds)


def _take_up(keeper, resume, total):
    path = keeper.path
    if not path.is_file():
        if resume:
            print(f"{path}: not there, so nothing is resumed; starts at step 0 of {total}.")
    elif resume:
        keeper.load()
        print(f"{path}: continues after step {keeper.position} of {total}.")
    elif keeper.write:
        checkpoint.set_aside(path)


def _verbosity(strategy):
    if not is_chief(strategy):
        return 0
    return 1 if sys.stdout.isatty() else 2


def _plain_copy(network, build):
    """The trained network without strategy, compiled state and mixed precision: what is saved, tested and exported."""
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
