# SPDX-License-Identifier: Apache-2.0
"""Losses, errors per image and accuracies against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from examples.experiments.core import evaluation, losses


def test_clipped_bce():
    generator = np.random.default_rng(0)
    targets, predictions = generator.random((2, 5, 4, 4, 1)).astype(np.float32)
    expected = -(targets * np.log(predictions) + (1 - targets) * np.log(1 - predictions))
    np.testing.assert_allclose(losses.clipped_bce(targets, predictions), expected[..., 0], rtol=2e-5)
    epsilon = np.finfo(np.float32).eps
    outside = np.array([[-3.0], [0.0], [1.0], [4.0]], np.float32)
    np.testing.assert_allclose(losses.clipped_bce(np.ones((4, 1)), outside)[:2], -np.log(epsilon), rtol=1e-6)
    np.testing.assert_allclose(losses.clipped_bce(np.zeros((4, 1)), outside)[2:], -np.log(epsilon), rtol=1e-6)
    assert losses.clipped_bce(np.ones((4, 1), np.float16), outside.astype(np.float16)).dtype == tf.float32


def test_errors_per_image():
    generator = np.random.default_rng(0)
    batches = [tuple(generator.random((2, count, 3, 6, 5, 1))) for count in (4, 3)]
    predictors = {"zero": np.zeros_like, "last": lambda inputs: inputs[:, -1:]}
    figures = evaluation.errors_per_image(losses.squared_error, predictors, batches)
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches))
    expected = 4096 * np.mean((targets - inputs[:, -1:]) ** 2, axis=(0, 2, 3, 4))
    assert figures["last"]["per_frame"] == pytest.approx(expected, rel=1e-5)
    assert figures["last"]["mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert figures["zero"]["mean"] == pytest.approx(4096 * np.mean(targets**2), rel=1e-5)
    assert figures["zero"]["images"] == 21

    still = evaluation.errors_per_image(losses.squared_error, {"zero": np.zeros_like}, [(inputs[:, 0], targets[:, 0])])
    assert still["zero"]["per_frame"] == pytest.approx([4096 * np.mean(targets[:, 0] ** 2)], rel=1e-5)


def test_accuracies():
    scores = np.array([[9.0, 8, 7, 6, 5, 4, 3]] * 5)
    labels = np.array([0, 1, 4, 5, 6])
    batches = [(tf.constant(scores[:3]), tf.constant(labels[:3])), (scores[3:], labels[3:, None])]
    assert evaluation.accuracies(batches, top=(1, 5)) == pytest.approx([20.0, 60.0])
    assert evaluation.accuracies([(np.zeros((2, 3)), np.array([0, 1]))]) == [50.0]  # the first of equal scores
