# SPDX-License-Identifier: Apache-2.0
"""Loaders and generators of the data that the experiments use.

Generators need no files. Loaders read files, and most of them fall back to generated data if the files are missing.
"""

from examples.experiments.data.cifar10 import generated_images, load_cifar10
from examples.experiments.data.faces import align_faces, generated_faces
from examples.experiments.data.image_batches import image_batches, normalized
from examples.experiments.data.image_folder import list_images, photograph_batches, photograph_test_batches
from examples.experiments.data.labelled_images import LabelledImages
from examples.experiments.data.locate import find_data
from examples.experiments.data.mnist import load_mnist
from examples.experiments.data.moving_mnist import moving_digits, split_frames
from examples.experiments.data.mtfl import Faces, load_mtfl
from examples.experiments.data.photographs import load_folder, load_photographs, noise_patches, sample_patches
from examples.experiments.data.rand_augment import rand_augment
from examples.experiments.data.random_crops import stereo_crops, video_clips
from examples.experiments.data.steerable import apply_steerable_filter, steerable_filter, steerable_triples
from examples.experiments.data.stereo import load_stereo
from examples.experiments.data.synthetic import synthetic_stereo, synthetic_video
from examples.experiments.data.video import load_video

__all__ = [
    "Faces",
    "LabelledImages",
    "align_faces",
    "apply_steerable_filter",
    "find_data",
    "generated_faces",
    "generated_images",
    "image_batches",
    "list_images",
    "load_cifar10",
    "load_folder",
    "load_mnist",
    "load_mtfl",
    "load_photographs",
    "load_stereo",
    "load_video",
    "moving_digits",
    "noise_patches",
    "normalized",
    "photograph_batches",
    "photograph_test_batches",
    "rand_augment",
    "sample_patches",
    "split_frames",
    "steerable_filter",
    "steerable_triples",
    "stereo_crops",
    "synthetic_stereo",
    "synthetic_video",
    "video_clips",
]
