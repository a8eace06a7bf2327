# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of the functions that build networks: each error names the argument, before a weight is created."""

import inspect
import math

import pytest

from keras_dynfilter import models

pytestmark = pytest.mark.legacy

NOT_POSITIVE_INTEGERS = ("3", 0, -1, True, 2.5, math.nan, [3], 2**31, 2**40)
COUNT = (*NOT_POSITIVE_INTEGERS, None, 2**30)
OPTIONAL_COUNT = (*NOT_POSITIVE_INTEGERS, 2**30)
FLAG = ("yes", 2, None, 0.5, [True])
FACTOR = ("1", 0, -1, True, None, math.inf, math.nan, 1e12, [1])
SLOPE = ("0.1", -1, True, None, math.inf, math.nan, [0.1])
WINDOW = ("3", 0, -3, 4, True, None, 3.0, (3,), (3, 4), (3, 3, 3), (3, "3"), 2**31 + 1, 99_999)
SQUARE = (*WINDOW, (3, 3))
CHOICE = ("unknown", 3, True, ["x"])
ACTIVATION = ("unknown", 3, ["relu"])
NORM = ("unknown", 3, True, ["x"])
SIZES = ("8", 0, -8, 8.0, True, 2**40)
NO_SHAPES = ("image", None, 8, 8.0, True, (8, 8), (8, 8, 1, 1), (8, 8, None), {8, 9, 1}, *((8, n, 1) for n in SIZES))
GREY = (*NO_SHAPES, (8, 8, 3), *((n, 8, 1) for n in SIZES))
SHAPE = (*NO_SHAPES, *((8, 8, n) for n in SIZES))

STEERABLE = dict(kernel_size=SQUARE, image_shape=GREY, raw_angles=FLAG)
VIDEO = dict(image_shape=GREY, input_frames=COUNT, output_frames=COUNT, kernel_size=WINDOW, width=FACTOR)
STEREO = dict(image_shape=GREY, kernel_size=WINDOW, width=FACTOR, untied_bias=FLAG)
RESNET = dict(
    input_shape=SHAPE,
    classes=COUNT,
    width=COUNT,
    stem=(*CHOICE, None),
    output_stride=NOT_POSITIVE_INTEGERS,
    include_top=FLAG,
    pooling=CHOICE,
    classifier_activation=ACTIVATION,
)
DDF = dict(
    squeeze_ratio=FACTOR,
    combine=(*CHOICE, None),
    heads=NOT_POSITIVE_INTEGERS,
    branches=(*CHOICE, None),
    spatial_norm=NORM,
    channel_norm=NORM,
    weights=(3, 0.5, True, [1.0], {1, 2}),
)
BLOCKS = dict(blocks=("3", 3, (), (1, 0), (1, True), (2.0,), None), block=(*CHOICE, None), convolution=("conv", 3))
REPOSITORY = dict(base_filters=OPTIONAL_COUNT, features_from=(*CHOICE, None), slope=SLOPE)
GENERATED = ({}, [1, 2], 5, "1", {10: 1}, {1: 6}, {"1": 1}, {1: "1"}, {1: [1]}, {True: 1}, {1: None}, {1: 1.0})
CLASSIFIER = dict(classes=COUNT, classifier_activation=ACTIVATION)
TABLE = {
    models.dfn_steerable: STEERABLE,
    models.dfn_steerable_baseline: STEERABLE,
    models.dfn_moving_mnist: VIDEO,
    models.dfn_moving_mnist_baseline: VIDEO,
    models.dfn_moving_mnist_blended: VIDEO,
    models.dfn_highway: dict(VIDEO, untied_bias=FLAG),
    models.dfn_highway_baseline: dict(VIDEO, untied_bias=FLAG),
    models.dfn_stereo: STEREO,
    models.dfn_stereo_baseline: STEREO,
    models.resnet: dict(RESNET, **BLOCKS),
    models.ddf_resnet50: dict(RESNET, **DDF),
    **{
        getattr(models, f"ddf_resnet{depth}"): {name: RESNET[name] for name in ("input_shape", "classes")}
        | {"squeeze_ratio": FACTOR}
        for depth in (18, 101, 152)
    },
    **{
        getattr(models, f"ddf_resnet{depth}_baseline"): {name: RESNET[name] for name in ("input_shape", "classes")}
        for depth in (18, 50, 101, 152)
    },
    models.vgg11: dict(
        CLASSIFIER, input_shape=(*SHAPE, (None, 32, 3), (32, 30, 3)), hidden=COUNT, dropout=(*SLOPE, 1, 1.5)
    ),
    models.repository_mnist: dict(REPOSITORY, encoder_channels=COUNT, classifier_activation=ACTIVATION),
    models.repository_mnist_baseline: dict(use_bias=FLAG, classifier_activation=ACTIVATION),
    models.repository_mtfl: dict(REPOSITORY, filters=COUNT, generated=GENERATED),
    models.repository_mtfl_baseline: dict(filters=COUNT, slope=SLOPE),
    models.repository_cifar10: dict(REPOSITORY, **CLASSIFIER),
    models.repository_cifar10_baseline: dict(CLASSIFIER, use_bias=FLAG),
}
ROWS = [(function, argument) for function, arguments in TABLE.items() for argument in arguments]


@pytest.mark.parametrize("function, argument", ROWS, ids=[f"{row[0].__name__}-{row[1]}" for row in ROWS])
def test_errors_name_the_argument(function, argument):
    for value in TABLE[function][argument]:
        with pytest.raises(ValueError) as raised:
            function(**{argument: value})
        text = str(raised.value)
        assert text.startswith(f"Expected `{argument}` to ") and "Received: " in text, (value, text)


def test_all_functions_and_arguments_are_listed():
    prefixes = ("dfn_", "ddf_resnet", "repository_", "resnet", "vgg11")
    functions = {getattr(models, name) for name in models.__all__ if name.startswith(prefixes)}
    assert functions == set(TABLE)
    for function, arguments in TABLE.items():
        assert set(inspect.signature(function).parameters) - {"name", "arguments"} == set(arguments), function.__name__
