# SPDX-License-Identifier: Apache-2.0
"""Makes the optimizers of the experiments: Adam for the predictors of images, SGD for the classifiers."""

import argparse
import math
from collections.abc import Callable

import keras

SCHEDULES = ("paper", "cosine", "constant")
MOMENTUM = 0.9
# Names of variables without weight decay: biases and the parameters of normalisations.
NOT_DECAYED = ("bias", "gamma", "beta", "scale", "center")


def learning_rate(args: argparse.Namespace, baseline: bool = False):
    """Returns the learning rate or schedule that the options ask for."""
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


def compile_with_adam(args: argparse.Namespace, loss, baseline: bool = False) -> Callable[[keras.Model], None]:
    """Returns a function that compiles a model with Adam as in the papers, at the learning rate of the options."""

    def compile_model(model):
        optimizer = keras.optimizers.Adam(
            learning_rate(args, baseline), epsilon=1e-8, global_clipnorm=args.clip_norm or None
        )
        jit = args.jit_compile
        if jit is None:
            jit = "auto" if args.strategy == "one" else False
        model.compile(optimizer, loss, jit_compile=jit, steps_per_execution=args.steps_per_execution)

    return compile_model


def sgd(
    rate: float,
    steps: int,
    warmup: float = 0.0,
    weight_decay: float = 0.0,
    last_rate: float = 0.0,
    nesterov: bool = True,
) -> keras.optimizers.Optimizer:
    """Makes SGD with momentum, whose learning rate rises linearly and then falls along a cosine.

    PyTorch, which the papers use, adds the weight decay to the gradient, so the momentum multiplies the decay by
    `1 / (1 - momentum)`. Keras subtracts the decay from the weights, so this function multiplies the decay instead.

    Args:
        rate: The highest learning rate.
        steps: Number of training steps.
        warmup: Number of steps in which the rate rises.
        weight_decay: Weight decay of kernels as PyTorch defines it.
        last_rate: The rate at the end.
        nesterov: Whether to use Nesterov's momentum.
    """
    warmup = min(round(warmup), steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        steps - warmup,
        alpha=last_rate / rate,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    decay = weight_decay / (1 - MOMENTUM) if weight_decay else None
    optimizer = keras.optimizers.SGD(schedule, MOMENTUM, nesterov, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer
