# SPDX-License-Identifier: Apache-2.0
"""Functions that build the networks of the papers and their baselines as Keras models, and building blocks."""

from keras_dynfilter.models.baselines.resnet import resnet
from keras_dynfilter.models.baselines.vgg import vgg11
from keras_dynfilter.models.ddf.authors_state import load_authors_state
from keras_dynfilter.models.ddf.preprocess import preprocess_imagenet
from keras_dynfilter.models.ddf.replace_convolutions import Replacements, replace_convolutions
from keras_dynfilter.models.ddf.resnet import (
    ddf_convolution,
    ddf_resnet18,
    ddf_resnet18_baseline,
    ddf_resnet50,
    ddf_resnet50_baseline,
    ddf_resnet101,
    ddf_resnet101_baseline,
    ddf_resnet152,
    ddf_resnet152_baseline,
)
from keras_dynfilter.models.dfn.blended_frame import BlendedFrame
from keras_dynfilter.models.dfn.filter_network import FilterNetwork
from keras_dynfilter.models.dfn.frame_predictor import FramePredictor
from keras_dynfilter.models.dfn.steerable import dfn_steerable, dfn_steerable_baseline
from keras_dynfilter.models.dfn.stereo import dfn_stereo, dfn_stereo_baseline
from keras_dynfilter.models.dfn.video import (
    dfn_highway,
    dfn_highway_baseline,
    dfn_moving_mnist,
    dfn_moving_mnist_baseline,
    dfn_moving_mnist_blended,
)
from keras_dynfilter.models.filter_repository.autoencoder import autoencoder
from keras_dynfilter.models.filter_repository.cifar10 import repository_cifar10, repository_cifar10_baseline
from keras_dynfilter.models.filter_repository.feature_generator import dimension_reduction, feature_generator
from keras_dynfilter.models.filter_repository.generated_network import generated_network
from keras_dynfilter.models.filter_repository.mnist import repository_mnist, repository_mnist_baseline
from keras_dynfilter.models.filter_repository.mtfl import repository_mtfl, repository_mtfl_baseline

__all__ = [
    "BlendedFrame",
    "FilterNetwork",
    "FramePredictor",
    "Replacements",
    "autoencoder",
    "ddf_convolution",
    "ddf_resnet18",
    "ddf_resnet18_baseline",
    "ddf_resnet50",
    "ddf_resnet50_baseline",
    "ddf_resnet101",
    "ddf_resnet101_baseline",
    "ddf_resnet152",
    "ddf_resnet152_baseline",
    "dfn_highway",
    "dfn_highway_baseline",
    "dfn_moving_mnist",
    "dfn_moving_mnist_baseline",
    "dfn_moving_mnist_blended",
    "dfn_steerable",
    "dfn_steerable_baseline",
    "dfn_stereo",
    "dfn_stereo_baseline",
    "dimension_reduction",
    "feature_generator",
    "generated_network",
    "load_authors_state",
    "preprocess_imagenet",
    "replace_convolutions",
    "repository_cifar10",
    "repository_cifar10_baseline",
    "repository_mnist",
    "repository_mnist_baseline",
    "repository_mtfl",
    "repository_mtfl_baseline",
    "resnet",
    "vgg11",
]
