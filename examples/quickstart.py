# SPDX-License-Identifier: Apache-2.0
"""Trains a network that predicts one filter per pixel, looks at its filters, and exports it to ONNX.

The data are pairs of an image and the same image moved by two pixels: dark images move to the left, bright images to
the right. The network learns this from the pairs alone. Its filters show what it has learned: each filter points to
the pixel that the value comes from.

    pip install '.[examples,export]'                       # in a checkout
    python examples/quickstart.py --out outputs/quickstart
"""

import argparse
import pathlib

import keras
import numpy as np

from keras_dynfilter.export import export
from keras_dynfilter.inspection import filters_to_flow, new_figure, show_filters, show_images
from keras_dynfilter.layers import DynamicLocalFilter2D

KERNEL_SIZE = 5


def moving_images(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of random texture, dark and bright in turn, and the same images moved by two pixels."""
    texture = np.random.default_rng(seed).uniform(0, 0.4, (count, size, size, 1)).astype("float32")
    dark, bright = texture[::2], texture[1::2] + 0.6
    moved = np.concatenate([np.roll(dark, -2, axis=2), np.roll(bright, 2, axis=2)])
    return np.concatenate([dark, bright]), moved[:, 2:-2, 2:-2]  # without the border, where pixels come from outside


def build_model(size: int = 32) -> tuple[keras.Model, keras.Model]:
    """Returns the network, and a second view of the same network that returns its filters."""
    image = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(32, KERNEL_SIZE, activation="relu")(image)
    logits = keras.layers.Conv2D(KERNEL_SIZE**2, 1)(x)  # 25 numbers per pixel: the filter of this pixel
    moved = DynamicLocalFilter2D(KERNEL_SIZE, padding="valid", normalization="softmax")([image, logits])
    filters = keras.layers.Softmax()(logits)
    return keras.Model(image, moved), keras.Model(image, filters)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("outputs/quickstart"), help="folder for files")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    network, filter_network = build_model()
    network.compile(keras.optimizers.Adam(0.01), "mse")
    network.fit(*moving_images(256), batch_size=8, epochs=8, verbose=2)

    images, moved = moving_images(2, seed=1)  # one dark and one bright image that the network has not seen
    predictions = network.predict(images, verbose=0)
    filters = filter_network.predict(images, verbose=0)
    flow = filters_to_flow(filters, KERNEL_SIZE)  # [image, row, column, (x, y)]: where each pixel comes from
    for name, vectors in zip(("dark", "bright"), flow):
        x, y = vectors.mean(axis=(0, 1))
        print(f"{name} image: pixels come from x = {x:+.2f}, y = {y:+.2f}")

    figure = new_figure(9, 6)
    top, bottom = figure.subfigures(2, 1)
    rows = {"image": images[1], "moved (target)": moved[1], "moved (predicted)": predictions[1]}
    show_images(top, {title: row[..., 0] for title, row in rows.items()}, grey=tuple(rows))
    centre = filters[:, 16, 16].reshape(-1, KERNEL_SIZE, KERNEL_SIZE)
    show_filters(bottom, {"filter of the central pixel": centre}, titles=["dark image", "bright image"])
    figure.savefig(out / "quickstart.png", dpi=120)

    report = export(network, out / "quickstart.onnx", format="onnx", verbose=False)
    largest = max(output.max_abs for output in report.validation.outputs)
    print(f"{report.path} was run by onnxruntime in a fresh process: largest difference from Keras {largest:.1e}")
    print(f"The picture is in {out / 'quickstart.png'}")


if __name__ == "__main__":
    main()
