# SPDX-License-Identifier: Apache-2.0
"""Removes noise with one filter per pixel: a custom `keras.Model` predicts the filters and applies them with an op.

One filter for the whole image blurs edges together with the noise. A filter per pixel averages along an edge and never
across it. The script trains a model of either kind, with windows of 7x7 pixels, and compares their errors.

    pip install '.[tensorflow]'    # in a checkout
    python examples/custom_generator.py
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_dynfilter import ops

KERNEL_SIZE = 7
NOISE = 0.15


def noisy_images(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy and clean images. An image consists of three random half planes in random shades of grey."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    clean = np.full((count, size, size, 1), 0.5, "float32")
    for image in clean:
        for _ in range(3):
            angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
            image[np.cos(angle) * rows + np.sin(angle) * columns > offset] = rng.uniform()
    noise = rng.normal(0, NOISE, clean.shape).astype("float32")
    return clean + noise, clean


@keras.saving.register_keras_serializable("custom_generator")  # lets `load_model` find the class
class Denoiser(keras.Model):
    """Filters every pixel with a filter that three convolutions predict from the pixels around it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [keras.layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(2)]
        self.filters = keras.layers.Conv2D(KERNEL_SIZE**2, 3, padding="same")

    def call(self, images):
        x = images
        for layer in self.hidden:
            x = layer(x)
        filters = self.filters(x)  # [batch, height, width, 49]: one filter per pixel
        # The softmax makes the weights of each filter positive, with the sum 1.
        return ops.local_filter2d(images, filters, KERNEL_SIZE, normalization="softmax")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="outputs/custom_generator", help="output folder")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    noisy, clean = noisy_images(64, seed=1)  # for tests only: the models are trained with another seed
    print(f"mean squared error of the noisy images:        {np.mean((noisy - clean) ** 2):.5f}")
    one_filter = keras.Sequential([keras.layers.Conv2D(1, KERNEL_SIZE, padding="same")])
    denoiser = Denoiser()
    for name, model in {"one filter for all pixels": one_filter, "one filter per pixel": denoiser}.items():
        model.compile(keras.optimizers.Adam(0.003), "mse")
        model.fit(*noisy_images(256), batch_size=8, epochs=10, verbose=0)
        error = model.evaluate(noisy, clean, verbose=0)
        print(f"mean squared error with {name + ':':26} {error:.5f}")

    denoiser.save(out / "denoiser.keras")
    loaded = keras.saving.load_model(out / "denoiser.keras")
    np.testing.assert_array_equal(loaded.predict(noisy, verbose=0), denoiser.predict(noisy, verbose=0))
    print(f"the model loaded from {out / 'denoiser.keras'} gives the same predictions")


if __name__ == "__main__":
    main()
