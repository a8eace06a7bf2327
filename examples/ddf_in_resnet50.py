# SPDX-License-Identifier: Apache-2.0
"""Replaces the 3x3 convolutions of a ResNet50 with decoupled dynamic filters, and trains the new network.

`replace_convolutions` copies any functional or sequential Keras model. All layers that it does not replace keep their
weights, so that you can start from a trained network (`weights="imagenet"`). The new `DDF2D` layers start from random
weights.

    pip install '.[tensorflow]'                            # in a checkout
    python examples/ddf_in_resnet50.py                     # on generated images
    python examples/ddf_in_resnet50.py --images FOLDER     # on your images, one subfolder per class
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.inspection import count_flops
from keras_dynfilter.models import replace_convolutions

SIZE = 64  # rows and columns of an image
BATCH = 16


def generated_images(count: int = 64, classes: int = 4) -> tf.data.Dataset:
    """Returns batches of noisy striped images and their labels. A class is a direction of the stripes."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    angles = (np.pi * labels / classes)[:, None, None]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    stripes = np.sin(0.4 * (np.cos(angles) * columns + np.sin(angles) * rows))[..., None]
    images = 128 + 80 * stripes + rng.normal(0, 20, (count, SIZE, SIZE, 3))
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).shuffle(count).batch(BATCH)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder with one subfolder of images per class")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of training (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default="outputs/ddf_in_resnet50", help="output folder")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    if args.images is None:
        images, classes = generated_images(), 4
    else:
        images = keras.utils.image_dataset_from_directory(args.images, batch_size=BATCH, image_size=(SIZE, SIZE))
        classes = len(images.class_names)

    resnet = keras.applications.ResNet50(weights=None, input_shape=(SIZE, SIZE, 3), classes=classes)
    network, replacements = replace_convolutions(resnet)
    print(f"{len(replacements.replaced)} convolutions became DDF2D layers")
    for name, reason in replacements.kept.items():
        print(f"{name} is still a convolution: {reason}")
    for name, model in {"ResNet50": resnet, "with DDF2D": network}.items():
        parameters, flops = model.count_params() / 1e6, count_flops(model) / 1e6
        print(f"{name:10}  {parameters:5.2f} million parameters  {flops:5.0f} million multiply-adds per image")

    preprocessed = images.map(lambda x, y: (keras.applications.resnet50.preprocess_input(x), y))
    # Without XLA: it takes minutes to compile this network.
    network.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    network.fit(preprocessed, epochs=args.epochs, shuffle=False, verbose=2)  # the data set shuffles itself

    path = args.out / "ddf_resnet50.keras"
    network.save(path)
    loaded = keras.saving.load_model(path)
    batch, _ = next(iter(preprocessed))
    np.testing.assert_array_equal(loaded(batch, training=False), network(batch, training=False))
    print(f"the network loaded from {path} gives the same predictions")


if __name__ == "__main__":
    main()
