# SPDX-License-Identifier: Apache-2.0
"""Optimizers of the experiments: learning rates, parameters of Adam, weight decay of SGD."""

import math

import pytest

from examples.experiments.core import losses, optimizer, training
from tests.support import toy_experiment
from tests.support.toy_options import parsed


def test_learning_rates():
    paper = optimizer.learning_rate(parsed("--recipe", "b", "--baseline-learning-rate", "0.04"))
    assert [float(paper(step)) for step in (0, 49, 50, 199)] == pytest.approx([0.2, 0.2, 0.1, 0.025])
    baseline = optimizer.learning_rate(parsed("--recipe", "b", "--baseline-learning-rate", "0.04"), baseline=True)
    assert float(baseline(0)) == pytest.approx(0.04)
    cosine = optimizer.learning_rate(parsed("--warmup", "0.2"))
    expected = [0, 0.05, 0.1, 0.1 * (1 + math.cos(math.pi / 2)) / 2, 0]
    assert [float(cosine(step)) for step in (0, 10, 20, 60, 100)] == pytest.approx(expected, abs=1e-7)
    assert float(optimizer.learning_rate(parsed("--warmup", "0"))(0)) == pytest.approx(0.1)
    assert optimizer.learning_rate(parsed("--schedule", "constant")) == 0.1


def test_adam_has_the_parameters_of_the_paper():
    model = training.Trainer(toy_experiment.build())
    optimizer.compile_with_adam(parsed(), losses.squared_error)(model)
    config = model.optimizer.get_config()
    assert (config["epsilon"], config["beta_1"], config["beta_2"]) == (1e-8, 0.9, 0.999)
    assert config["global_clipnorm"] is None
    optimizer.compile_with_adam(parsed("--clip-norm", "0.5"), losses.squared_error)(model)
    assert model.optimizer.get_config()["global_clipnorm"] == 0.5


def test_schedule_of_sgd():
    made = optimizer.sgd(0.4, 100, warmup=10, weight_decay=1e-4, last_rate=0.04, nesterov=False)
    rates = [float(made._learning_rate(step)) for step in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.22, 0.04], abs=1e-6)
    assert made.get_config()["nesterov"] is False
    assert made.get_config()["weight_decay"] == pytest.approx(1e-3)
    assert float(optimizer.sgd(0.1, 10)._learning_rate(0)) == pytest.approx(0.1)
