# SPDX-License-Identifier: Apache-2.0
"""Photographs in a folder per class: to train on, cropped at random, as steps of a data set; to test on, in order."""

import pathlib

import numpy as np
import tensorflow as tf

from examples.experiments.data.image_batches import IMAGENET_STATISTICS, normalized, shuffled
from examples.experiments.data.photographs import image_files
from examples.experiments.data.rand_augment import rand_augment
from examples.experiments.data.step_datasets import by_steps, draws
from keras_dynfilter.ops.checks import positive

DECODED = (".png", ".jpg", ".jpeg", ".bmp")  # what TensorFlow reads
CENTRE = 0.875  # of the shorter side is seen in a test: 224 of 256 pixels
LARGEST_ERASED, SMALLEST_ERASED, ERASED_ASPECT = 1 / 3, 0.02, 0.3


def list_images(folder, classes=None):
    """Lists the images of a folder that holds a folder for every class.

    Args:
        folder: Path.
        classes: Names of the classes, in the order of their labels; None: the folders that there are, by name.

    Returns:
        `(files, labels, classes)`: paths as strings, `[count]`, int32, and names.

    Raises:
        ValueError: There is no such folder, no class, a class that is not in `classes`, or no image of any.
    """
    folder = pathlib.Path(folder)
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    known = list(found if classes is None else classes)
    files = [(str(file), known.index(name)) for name in found if name in known for file in image_files(folder / name)]
    files = [(file, label) for file, label in files if file.lower().endswith(DECODED)]
    if not files or not set(found) <= set(known):
        expected = f"Expected `folder` to hold a folder of images ({', '.join(DECODED)}) for every class"
        unknown = sorted(set(found) - set(known))[:5]
        raise ValueError(
            f"{expected}. Received: folder={str(folder)!r}, {len(files)} images, unknown classes: {unknown}"
        )
    paths, labels = zip(*files)
    return list(paths), np.array(labels, np.int32), known


def photograph_batches(
    files,
    labels,
    batch_size,
    steps,
    start=0,
    seed=0,
    size=224,
    least_area=0.08,
    color_jitter=0.0,
    rand_augment_magnitude=None,
    erasing=0.0,
    statistics=IMAGENET_STATISTICS,
):
    """Batches of photographs to train on: random resized crops, half of them mirrored.

    Step `i` is a function of `seed` and `i` alone; an epoch takes every image once, in an order of its own.

    Args:
        files: Paths of the images, `[count]`.
        labels: `[count]`, integers.
        batch_size: Positive integer, images of a step.
        steps: The step to end before.
        start: The step to start with.
        seed: Integer seed, not negative.
        size: Positive integer, rows and columns of a crop, after it was resized.
        least_area: Share of the area of the image that a crop has at least. Its width is 3/4 to 4/3 of its height.
        color_jitter: Brightness, contrast and saturation change by up to this factor.
        rand_augment_magnitude: Of `rand_augment`, 0 to 10; None: none of it.
        erasing: Probability that up to three rectangles of an image become noise.
        statistics: Means and deviations of the channels, for `normalized`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, `[batch, size, size, 3]`, float32, and `[batch]`, int32,
        `steps - start` batches long.

    Raises:
        ValueError: An argument is not as described.
    """
    files, labels = _checked(files, labels)
    batch_size, size = positive(batch_size, "batch_size"), positive(size, "size")
    count = len(files)
    files, labels = tf.constant(files), tf.constant(labels, tf.int32)

    def photograph(key, place):
        index = shuffled(key[0], place, 1, count)[0]
        image = random_crop(_decoded(files[index]), draws(key, 0), size, least_area)
        if rand_augment_magnitude is not None:
            image = rand_augment(image, draws(key, 1), rand_augment_magnitude)
        if color_jitter:
            image = jittered(image, draws(key, 2), color_jitter)
        image = normalized(image, statistics)
        if erasing:
            image = erased(image, draws(key, 3), erasing)
        return image, labels[index]

    photographs = by_steps(photograph, steps * batch_size, start * batch_size, seed)
    return photographs.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def photograph_tests(files, labels, batch_size, size=224, statistics=IMAGENET_STATISTICS):
    """Batches of photographs to test on, all of them in order: the square in their middle, `CENTRE` of a side.

    Args:
        files: Paths of the images, `[count]`.
        labels: `[count]`, integers.
        batch_size: Positive integer; the last batch may be smaller.
        size: Positive integer, rows and columns.
        statistics: Means and deviations of the channels, for `normalized`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, as of `photograph_batches`.
    """
    files, labels = _checked(files, labels)

    def photograph(file, label):
        image = _decoded(file)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.cast(tf.round(CENTRE * tf.cast(tf.minimum(height, width), tf.float32)), tf.int32)
        image = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
        return normalized(tf.image.resize(image, [size, size], antialias=True), statistics), label

    files = tf.data.Dataset.from_tensor_slices((files, tf.constant(labels, tf.int32)))
    return files.map(photograph, tf.data.AUTOTUNE).batch(positive(batch_size, "batch_size")).prefetch(tf.data.AUTOTUNE)


def random_crop(image, key, size, least_area):
    """A part of `[height, width, 3]`, resized to `[size, size, 3]`, float32, 0 to 255, mirrored or not."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        key,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(least_area, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    image = tf.image.resize(tf.slice(image, begin, extent), [size, size], antialias=True)
    return tf.image.stateless_random_flip_left_right(image, draws(key, 8))


def jittered(image, key, factor):
    """Brightness, contrast and saturation of `[height, width, 3]`, 0 to 255, times `1 - factor` to `1 + factor`."""
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform([3], key, 1 - factor, 1 + factor))
    image = tf.clip_by_value(image * brightness, 0, 255)
    grey = tf.image.rgb_to_grayscale(image)
    image = tf.clip_by_value(tf.reduce_mean(grey) * (1 - contrast) + image * contrast, 0, 255)
    grey = tf.image.rgb_to_grayscale(image)
    return tf.clip_by_value(grey * (1 - saturation) + image * saturation, 0, 255)


def erased(image, key, probability, most=3):
    """Normalised `[height, width, 3]`; with `probability`, noise in the place of one to `most` rectangles.

    Together they have 2 % to a third of the area on average; each is cut off at the border, if it lies there.
    """
    height, width, channels = image.shape
    chosen = tf.random.stateless_uniform([], draws(key, 16)) < probability
    count = tf.random.stateless_uniform([], draws(key, 17), 1, most + 1, tf.int32)
    shares = tf.random.stateless_uniform([most], draws(key, 18), SMALLEST_ERASED, LARGEST_ERASED)
    areas = shares * height * width / tf.cast(count, tf.float32)
    limit = float(np.log(ERASED_ASPECT))
    aspects = tf.exp(tf.random.stateless_uniform([most], draws(key, 19), limit, -limit))
    extents = tf.stack([tf.sqrt(areas * aspects), tf.sqrt(areas / aspects)], axis=1)
    extents = tf.minimum(tf.round(extents), [height, width])
    corners = tf.random.stateless_uniform([most, 2], draws(key, 20)) * ([height, width] - extents + 1)
    corners = tf.floor(corners)
    inside = tf.zeros([height, width], tf.bool)
    rows, columns = tf.range(height, dtype=tf.float32)[:, None], tf.range(width, dtype=tf.float32)
    for i in range(most):
        down = (rows >= corners[i, 0]) & (rows < corners[i, 0] + extents[i, 0])
        inside |= down & (columns >= corners[i, 1]) & (columns < corners[i, 1] + extents[i, 1]) & (i < count)
    noise = tf.random.stateless_normal([height, width, channels], draws(key, 21))
    return tf.where((inside & chosen)[..., None], noise, image)


def _decoded(file):
    return tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)


def _checked(files, labels):
    files, labels = list(files), np.asarray(labels)
    if not files or labels.shape != (len(files),):
        expected = "Expected `files` not to be empty and `labels` to have one label for each"
        raise ValueError(f"{expected}. Received: {len(files)} files, {labels.shape=}")
    return files, labels
