# SPDX-License-Identifier: Apache-2.0
"""The optimizer of the classifiers: SGD along a cosine."""

import keras

MOMENTUM = 0.9
# Names of biases and of what normalisations learn, which are not decayed.
NOT_DECAYED = ("bias", "gamma", "beta", "scale", "center")


def make(rate, steps, warmup=0.0, weight_decay=0.0, last_rate=0.0, nesterov=True):
    """SGD with momentum, whose learning rate rises along a line and falls along a cosine.

    Keras takes the decay off the weights, PyTorch adds it to the gradient, so that the momentum multiplies it by
    `1 / (1 - momentum)`. It is meant as there, as in the papers.

    Args:
        rate: The highest learning rate.
        steps: Number of training steps.
        warmup: Number of steps in which the rate rises.
        weight_decay: Of kernels, in the sense of PyTorch.
        last_rate: The rate at the end.
        nesterov: Whether the momentum is Nesterov's.

    Returns:
        A Keras optimizer.
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
