# SPDX-License-Identifier: Apache-2.0
"""Lists photographs in one folder per class, and returns batches of them for training and for testing."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from examples.experiments.data.image_batches import IMAGENET_STATISTICS, Statistics, normalized, shuffled_indices
from examples.experiments.data.image_limits import check_image, read_bytes, reason
from examples.experiments.data.photographs import image_files
from examples.experiments.data.rand_augment import rand_augment
from examples.experiments.data.step_datasets import random_key, step_dataset
from keras_dynfilter.ops.checks import positive

DECODED = (".png", ".jpg", ".jpeg", ".bmp")  # the formats that TensorFlow reads
CENTRE = 0.875  # side of the square that tests use, as a share of the shorter side: 224 of 256 pixels
SMALLEST_ERASED, LARGEST_ERASED = 0.02, 1 / 3  # shares of the image area
ERASED_ASPECT = 0.3  # smallest aspect ratio of an erased rectangle; its inverse is the largest


def list_images(
    folder: str | os.PathLike, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, list[str]]:
    """Lists the images of a folder that holds one subfolder per class.

    Args:
        folder: Path.
        classes: Names of the classes in the order of their labels. None: the names of the subfolders, sorted.

    Returns:
        `(files, labels, classes)`: paths as strings, `[count]`, int32, and names.

    Raises:
        ValueError: There is no such folder, no class, a class that is not in `classes`, or no image of any class.
    """
    folder = pathlib.Path(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    known = list(names if classes is None else classes)
    files = [(str(file), known.index(name)) for name in names if name in known for file in image_files(folder / name)]
    files = [(file, label) for file, label in files if file.lower().endswith(DECODED)]
    if not files or not set(names) <= set(known):
        expected = f"Expected `folder` to hold a folder of images ({', '.join(DECODED)}) for every class"
        unknown = sorted(set(names) - set(known))[:5]
        raise ValueError(
            f"{expected}. Received: folder={str(folder)!r}, {len(files)} images, unknown classes: {unknown}"
        )
    paths, labels = zip(*files)
    return list(paths), np.array(labels, np.int32), known


def photograph_batches(
    files: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    batch_size: int,
    steps: int,
    start: int = 0,
    seed: int = 0,
    size: int = 224,
    least_area: float = 0.08,
    color_jitter: float = 0.0,
    rand_augment_magnitude: float | None = None,
    erasing: float = 0.0,
    statistics: Statistics = IMAGENET_STATISTICS,
) -> tf.data.Dataset:
    """Returns batches of photographs for training: random resized crops, half of them mirrored.

    Step `i` is a function of `seed` and `i` alone. Every epoch takes each image once, in an order of its own.

    Args:
        files: Paths of the images, `[count]`.
        labels: `[count]`, integers.
        batch_size: Positive integer, images per step.
        steps: The data set ends before this step.
        start: The data set starts at this step.
        seed: Non-negative integer seed.
        size: Positive integer, rows and columns of a crop after resizing.
        least_area: Smallest share of the image area that a crop covers. Its width is 3/4 to 4/3 of its height.
        color_jitter: Brightness, contrast and saturation change by factors from `1 - color_jitter` to
            `1 + color_jitter`.
        rand_augment_magnitude: Magnitude of `rand_augment`, 0 to 10. None: no `rand_augment`.
        erasing: Probability that one to three rectangles of an image are replaced by noise.
        statistics: Means and standard deviations of the channels, for `normalized`.

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

    def photograph(key, position):
        index = shuffled_indices(key[0], position, 1, count)[0]
        image = random_crop(_decode(files[index]), random_key(key, 0), size, least_area)
        if rand_augment_magnitude is not None:
            image = rand_augment(image, random_key(key, 1), rand_augment_magnitude)
        if color_jitter:
            image = jitter_color(image, random_key(key, 2), color_jitter)
        image = normalized(image, statistics)
        if erasing:
            image = erase_rectangles(image, random_key(key, 3), erasing)
        return image, labels[index]

    photographs = step_dataset(photograph, steps * batch_size, start * batch_size, seed)
    return photographs.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def photograph_test_batches(
    files: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    batch_size: int,
    size: int = 224,
    statistics: Statistics = IMAGENET_STATISTICS,
) -> tf.data.Dataset:
    """Returns batches of all photographs in order, for testing.

    Each photograph is cropped to its central square. The side of the square is `CENTRE` times the shorter side.

    Args:
        files: Paths of the images, `[count]`.
        labels: `[count]`, integers.
        batch_size: Positive integer; the last batch may be smaller.
        size: Positive integer, rows and columns.
        statistics: Means and standard deviations of the channels, for `normalized`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, as `photograph_batches` returns it.
    """
    files, labels = _checked(files, labels)

    def photograph(file, label):
        image = _decode(file)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        side = tf.cast(tf.round(CENTRE * tf.cast(tf.minimum(height, width), tf.float32)), tf.int32)
        image = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
        return normalized(tf.image.resize(image, [size, size], antialias=True), statistics), label

    files = tf.data.Dataset.from_tensor_slices((files, tf.constant(labels, tf.int32)))
    return files.map(photograph, tf.data.AUTOTUNE).batch(positive(batch_size, "batch_size")).prefetch(tf.data.AUTOTUNE)


def random_crop(image: tf.Tensor, key: tf.Tensor, size: int, least_area: float) -> tf.Tensor:
    """Resizes a random part of `[height, width, 3]` to `[size, size, 3]`, float32, and mirrors half of the results."""
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
    return tf.image.stateless_random_flip_left_right(image, random_key(key, 8))


def jitter_color(image: tf.Tensor, key: tf.Tensor, factor: float) -> tf.Tensor:
    """Multiplies brightness, contrast and saturation of an image by random factors from `1 - factor` to `1 + factor`.

    `tf.image` is not used: it adds to the brightness instead, and measures contrast from the mean of each channel.

    Args:
        image: `[height, width, 3]`, float32, 0 to 255.
        key: Key for `tf.random.stateless_uniform`, `[2]`, int64.
        factor: Number from 0 to 1.
    """
    brightness, contrast, saturation = tf.unstack(tf.random.stateless_uniform([3], key, 1 - factor, 1 + factor))
    image = tf.clip_by_value(image * brightness, 0, 255)
    grey = tf.image.rgb_to_grayscale(image)
    image = tf.clip_by_value(tf.reduce_mean(grey) * (1 - contrast) + image * contrast, 0, 255)
    grey = tf.image.rgb_to_grayscale(image)
    return tf.clip_by_value(grey * (1 - saturation) + image * saturation, 0, 255)


def erase_rectangles(image: tf.Tensor, key: tf.Tensor, probability: float, max_count: int = 3) -> tf.Tensor:
    """Replaces one to `max_count` rectangles of a normalised image `[height, width, 3]` by noise, with `probability`.

    Rectangles that do not overlap cover about 2 % to a third of the image in total.
    """
    height, width, channels = image.shape
    chosen = tf.random.stateless_uniform([], random_key(key, 16)) < probability
    count = tf.random.stateless_uniform([], random_key(key, 17), 1, max_count + 1, tf.int32)
    shares = tf.random.stateless_uniform([max_count], random_key(key, 18), SMALLEST_ERASED, LARGEST_ERASED)
    areas = shares * height * width / tf.cast(count, tf.float32)
    limit = float(np.log(ERASED_ASPECT))
    aspects = tf.exp(tf.random.stateless_uniform([max_count], random_key(key, 19), limit, -limit))
    extents = tf.stack([tf.sqrt(areas * aspects), tf.sqrt(areas / aspects)], axis=1)
    extents = tf.minimum(tf.round(extents), [height, width])
    corners = tf.random.stateless_uniform([max_count, 2], random_key(key, 20)) * ([height, width] - extents + 1)
    corners = tf.floor(corners)
    inside = tf.zeros([height, width], tf.bool)
    rows, columns = tf.range(height, dtype=tf.float32)[:, None], tf.range(width, dtype=tf.float32)
    for i in range(max_count):
        down = (rows >= corners[i, 0]) & (rows < corners[i, 0] + extents[i, 0])
        inside |= down & (columns >= corners[i, 1]) & (columns < corners[i, 1] + extents[i, 1]) & (i < count)
    noise = tf.random.stateless_normal([height, width, channels], random_key(key, 21))
    return tf.where((inside & chosen)[..., None], noise, image)


def _decode(file):
    """Reads an image, `[height, width, 3]`, uint8. The errors of TensorFlow's own ops would not name the file."""
    image, problem = tf.numpy_function(_try_read_image, [file], (tf.uint8, tf.string), stateful=False)
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(problem, ""), [problem])]):
        return tf.ensure_shape(image, [None, None, 3])


def _try_read_image(file: bytes) -> tuple[np.ndarray, bytes]:
    """Returns an image and an empty text, or why there is none: TensorFlow would add a traceback to an exception."""
    try:
        return _read_image(file), b""
    except (ValueError, OSError) as error:
        return np.empty([0, 0, 3], np.uint8), str(error).encode()


def _read_image(file: bytes) -> np.ndarray:
    path = pathlib.Path(os.fsdecode(file))
    content = read_bytes(path)
    check_image(content, path)
    try:
        return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Expected {path} to be an image. Received: {reason(error)}") from error


def _checked(files, labels):
    files, labels = list(files), np.asarray(labels)
    if not files or labels.shape != (len(files),):
        expected = "Expected `files` not to be empty and `labels` to have one label for each"
        raise ValueError(f"{expected}. Received: {len(files)} files, {labels.shape=}")
    return files, labels
