# SPDX-License-Identifier: Apache-2.0
"""Trains a network that predicts one filter per pixel, looks at its filters, and exports it to ONNX.

The data are pairs of an image and the same image moved by two pixels: dark images move to the left, bright images to
the right. The network learns the motion from these pairs alone. Its filters show what it has learned: the largest
weight of each filter is at the pixel that the value comes from.

    pip install '.[tensorflow,examples,export]'            # in a checkout
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
    """Returns images of random texture, first dark ones, then bright ones, and the same images moved by two pixels."""
    texture = np.random.default_rng(seed).uniform(0, 0.4, (count, size, size, 1)).astype("float32")
    dark, bright = texture[::2], texture[1::2] + 0.6
    moved = np.concatenate([np.roll(dark, -2, axis=2), np.roll(bright, 2, axis=2)])
    return np.concatenate([dark, bright]), moved[:, 2:-2, 2:-2]  # no border: the network does not pad


def build_model(size: int = 32) -> tuple[keras.Model, keras.Model]:
    """Returns the network, and a second model with the same layers that returns the filters."""
    image = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(32, KERNEL_SIZE, activation="relu")(image)
    logits = keras.layers.Conv2D(KERNEL_SIZE**2, 1)(x)  # 25 numbers per pixel: the filter of this pixel
    moved = DynamicLocalFilter2D(KERNEL_SIZE, padding="valid", normalization="softmax")([image, logits])
    filters = keras.layers.Softmax()(logits)  # the filters that the layer above applies
    return keras.Model(image, moved), keras.Model(image, filters)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="outputs/quickstart", help="output folder")
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
    truth = {"dark": 2, "bright": -2}  # a dark image moves to the left, so its pixels come from the right
    for name, vectors in zip(truth, flow):
        x, y = vectors.mean(axis=(0, 1))
        print(f"{name} image: pixels come from x = {x:+.2f}, y = {y:+.2f} (true: x = {truth[name]:+}, y = 0)")

    figure = new_figure(9, 6)
    top, bottom = figure.subfigures(2, 1)
    bright = {"image": images[1], "moved (target)": moved[1], "moved (predicted)": predictions[1]}
    show_images(top, {title: image[..., 0] for title, image in bright.items()}, grey=tuple(bright))
    centre = filters[:, 14, 14].reshape(-1, KERNEL_SIZE, KERNEL_SIZE)
    show_filters(bottom, {"filter of the central pixel": centre}, titles=["dark image", "bright image"])
    figure.savefig(out / "quickstart.png", dpi=120)

    report = export(network, out / "quickstart.onnx", format="onnx", verbose=False)
    largest = max(output.max_abs for output in report.validation.outputs)
    print(f"onnxruntime ran {report.path} in a fresh process: largest difference from Keras {largest:.1e}")
    print(f"images and filters: {out / 'quickstart.png'}")


if __name__ == "__main__":
    main()
