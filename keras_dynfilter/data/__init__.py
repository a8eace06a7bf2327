# SPDX-License-Identifier: Apache-2.0
"""Data of the experiments: generators and loaders that need no download unless they say so."""

from keras_dynfilter.data.cifar10 import generated_images, load_cifar10
from keras_dynfilter.data.clips import stereo_crops, video_clips
from keras_dynfilter.data.digits import load_digits, load_mnist
from keras_dynfilter.data.faces import align_faces, generated_faces, load_mtfl
from keras_dynfilter.data.find import find_data
from keras_dynfilter.data.image_batches import image_batches, normalized
from keras_dynfilter.data.image_folder import list_images, photograph_batches, photograph_tests
from keras_dynfilter.data.moving_mnist import moving_digits, split_frames
from keras_dynfilter.data.photographs import load_folder, load_photographs, noise_patches, sample_patches
from keras_dynfilter.data.rand_augment import rand_augment
from keras_dynfilter.data.steerable import filtered, steerable_filter, steerable_triples
from keras_dynfilter.data.stereo import load_stereo
from keras_dynfilter.data.synthetic import synthetic_stereo, synthetic_video
from keras_dynfilter.data.video import load_video

__all__ = [
    "align_faces",
    "filtered",
    "find_data",
    "generated_faces",
    "generated_images",
    "image_batches",
    "list_images",
    "load_cifar10",
    "load_digits",
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
    "photograph_tests",
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
