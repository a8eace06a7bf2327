# SPDX-License-Identifier: Apache-2.0
"""The steerable network has the layers of the DFN paper, agrees with SciPy, and refuses wrong arguments."""

import numpy as np
import pytest

from keras_dynfilter import inspection, models

signal = pytest.importorskip("scipy.signal")
ANGLES = np.deg2rad([0.0, 45.0, 90.0, 139.2, 180.0, 242.9])


@pytest.mark.parametrize("raw_angles", [False, True])
def test_network_is_the_one_of_the_paper(raw_angles):
    model = models.dfn_steerable(raw_angles=raw_angles)
    assert model.count_params() == 18_897
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [
        (1, 64), (64,), (64, 128), (128,), (128, 81), (81,)
    ]  # fmt: skip
    filters = inspection.generated_filters(model, ANGLES)
    images = np.random.default_rng(0).random((6, 20, 24, 1), np.float32)
    results = model({"images": images, "angles": ANGLES[:, None].astype(np.float32)})
    expected = [signal.correlate2d(image[..., 0], taps, mode="same") for image, taps in zip(images, filters)]
    np.testing.assert_allclose(results[..., 0], expected, rtol=1e-4, atol=1e-5)

    features = ANGLES[:, None] if raw_angles else ANGLES[:, None] / np.pi - 1
    weights = [weight.numpy() for weight in model.trainable_weights]
    for kernel, bias in zip(weights[:4:2], weights[1:4:2]):
        features = features @ kernel + bias
        features = np.where(features > 0, features, 0.01 * features)
    np.testing.assert_allclose(filters.reshape(6, 81), features @ weights[4] + weights[5], rtol=1e-4, atol=1e-5)


def test_baseline_has_more_parameters_and_the_same_interface():
    model = models.dfn_steerable_baseline()
    assert model.count_params() == 23_553
    images = np.zeros((2, 12, 10, 1), np.float32)
    assert model({"images": images, "angles": np.zeros((2, 1), np.float32)}).shape == (2, 12, 10, 1)


@pytest.mark.parametrize("network", [models.dfn_steerable, models.dfn_steerable_baseline])
def test_network_errors(network):
    for size in (4, 0, -3, 3.0, True, (3, 3)):
        with pytest.raises(ValueError, match=r"Expected `kernel_size` to be odd and positive\. Received: kernel_size="):
            network(size)
    with pytest.raises(ValueError, match=r"Expected `image_shape` to be \(height, width, 1\) .*\(8, 8, 3\)"):
        network(image_shape=(8, 8, 3))


def test_generated_filters_needs_a_network_that_generates_them():
    with pytest.raises(ValueError, match=r"Expected `model` to generate filters\. Received: dfn_steerable_baseline"):
        inspection.generated_filters(models.dfn_steerable_baseline(), ANGLES)
