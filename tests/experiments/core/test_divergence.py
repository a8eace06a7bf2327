# SPDX-License-Identifier: Apache-2.0
"""Trainings whose loss or weights become infinite or NaN: they stop at the right step and keep the last good state."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import checkpoint, divergence, losses, training
from tests.support import toy_experiment


def train_toy(out, bad_step=0, bad_value=math.nan, epoch=5, build=toy_experiment.build, per_call=1, **arguments):
    def compile_model(model):
        model.compile(keras.optimizers.Adam(0.01), losses.squared_error, steps_per_execution=per_call)

    def data(first, end):
        return toy_experiment.batches(first, end, bad_step=bad_step, bad_value=bad_value)

    return training.train("toy", build, compile_model, data, 12, epoch, out, **arguments)


def same_state(path, other):
    (arrays, notes), (others, other_notes) = checkpoint.load(path), checkpoint.load(other)
    assert notes["position"] == other_notes["position"]
    return all(value.tobytes() == expected.tobytes() for value, expected in zip(arrays, others, strict=True))


@pytest.mark.parametrize("seconds", [0.0, math.inf])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_stops_at_the_first_loss_and_resumes_before_it(tmp_path, monkeypatch, seconds, value):
    """The step is the same whether the losses are read after every step or after every epoch."""
    monkeypatch.setattr(divergence, "SECONDS", seconds)
    path = tmp_path / "parts" / "toy.checkpoint"
    with pytest.raises(divergence.DivergedError) as stop:
        train_toy(tmp_path / "parts", 8, value)
    assert stop.value.step == 8
    assert f"{stop.value}".startswith(
        f"toy diverged: the loss is not finite at step 8 of 12. {path} keeps the state after step 5; "
    )
    arrays, notes = checkpoint.load(path)
    assert notes["position"] == 5 and all(np.isfinite(array).all() for array in arrays)
    assert not (tmp_path / "parts" / "toy.keras").exists()
    train_toy(tmp_path / "parts", resume=True)
    train_toy(tmp_path / "whole")
    assert same_state(path, tmp_path / "whole" / "toy.checkpoint")


def test_step_is_exact_if_one_call_executes_several_steps(tmp_path):
    with pytest.raises(divergence.DivergedError, match=r"at step 6 of 12\. No state was saved in .*toy\.checkpoint"):
        train_toy(tmp_path, 6, epoch=12, per_call=4)
    assert not (tmp_path / "toy.checkpoint").exists()


@keras.saving.register_keras_serializable("toy")
class FiniteValueOfInfiniteSlope(keras.layers.Layer):
    """Adds the norm of its weights, which are zero. The gradient of the norm is then infinity times zero."""

    def build(self, input_shape):
        self.vector = self.add_weight(name="vector", shape=(3,), initializer="zeros")

    def call(self, inputs):
        return inputs + tf.norm(self.vector)


def build_with_infinite_slope():
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same"), FiniteValueOfInfiniteSlope()]
    return keras.Sequential(layers)


@pytest.mark.parametrize(
    ("epoch", "what"),
    [
        (1, r"3 variables are not finite, the first is .*vector, after step 1 of"),
        (5, "the loss is not finite at step 2"),
    ],
)
def test_finite_loss_with_a_gradient_that_is_not(tmp_path, epoch, what):
    """The weights are bad before a loss is."""
    with pytest.raises(divergence.DivergedError, match=what):
        train_toy(tmp_path, epoch=epoch, build=build_with_infinite_slope)
    assert not (tmp_path / "toy.checkpoint").exists()


def test_steps_that_loss_scaling_skips_do_not_stop_the_training(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=2.0**40)
        build, data = toy_experiment.build, toy_experiment.batches
        training.train("toy", build, lambda model: model.compile(optimizer, "mse"), data, 4, 2, tmp_path)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert float(optimizer.dynamic_scale) < 2.0**40  # at least one step was skipped


def test_callbacks_that_evaluate_do_not_see_a_diverged_network(tmp_path):
    class Evaluation(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            int(self.model.network.get_weights()[0].sum())  # an error for NaN

    with pytest.raises(divergence.DivergedError):
        train_toy(tmp_path, 3, callbacks=[Evaluation()])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_of_every_dtype_are_checked(dtype, tmp_path):
    def build():
        layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same"), Overflow()]
        return keras.Sequential(layers)

    class Overflow(keras.layers.Layer):
        """Has a weight that is infinite without effect on the loss."""

        def build(self, input_shape):
            infinite = keras.initializers.Constant(math.inf)
            self.add_weight(name="infinite", shape=(2,), initializer=infinite, dtype=dtype, trainable=False)

        def call(self, inputs):
            return inputs

    with pytest.raises(divergence.DivergedError, match=r"1 variables are not finite, the first is .*infinite, after"):
        train_toy(tmp_path, build=build)
    assert not (tmp_path / "toy.checkpoint").exists()
