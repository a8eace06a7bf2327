# SPDX-License-Identifier: Apache-2.0
"""Calls the public ops with wrong arguments, and checks the type of the error and what it says was expected."""

import doctest
import re

import numpy as np
import pytest
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter import ops
from keras_dynfilter.ops import checks, layout
from tests.support import cases

pytestmark = pytest.mark.legacy

X = np.ones((2, 5, 6, 4), np.float32)
S = np.ones((2, 5, 6, 9), np.float32)
C = np.ones((2, 3, 3, 4), np.float32)
BANK = np.ones((2, 3, 3, 4, 3), np.float32)
BANKS = np.ones((2, 5, 6, 3, 3, 4, 3), np.float32)

VALID = {
    "local_filter2d": dict(inputs=X, filters=S, kernel_size=3),
    "dynamic_depthwise_conv2d": dict(inputs=X, filters=C),
    "ddf2d": dict(inputs=X, channel_filters=C, spatial_filters=S),
    "dynamic_conv2d": dict(inputs=X, filters=BANK),
    "local_conv2d": dict(inputs=X, filters=BANKS),
}

PAIR = r"Expected `{0}` to be a positive integer or a pair of them\. Received: {0}="
TOO_LARGE = r"Expected `{0}` to be at most 2147483647\. Received: {0}="
ALL_OPS = [  # name, changed arguments, type of the error, pattern of the text
    ("strides_zero", dict(strides=0), ValueError, PAIR.format("strides") + "0"),
    ("strides_negative", dict(strides=(1, -1)), ValueError, PAIR.format("strides") + r"\(1, -1\)"),
    ("strides_three", dict(strides=(1, 1, 1)), ValueError, PAIR.format("strides")),
    ("strides_float", dict(strides=1.5), ValueError, PAIR.format("strides") + "1.5"),
    ("strides_boolean", dict(strides=True), ValueError, PAIR.format("strides") + "True"),
    ("strides_booleans", dict(strides=(1, True)), ValueError, PAIR.format("strides") + r"\(1, True\)"),
    ("strides_huge", dict(strides=(1, 2**31)), ValueError, TOO_LARGE.format("strides") + r"\(1, 2147483648\)"),
    ("strides_none", dict(strides=None), ValueError, PAIR.format("strides") + "None"),
    ("strides_text", dict(strides="12"), ValueError, PAIR.format("strides") + "'12'"),
    ("dilation_zero", dict(dilation_rate=(0, 1)), ValueError, PAIR.format("dilation_rate") + r"\(0, 1\)"),
    ("dilation_negative", dict(dilation_rate=-2), ValueError, PAIR.format("dilation_rate") + "-2"),
    ("dilation_boolean", dict(dilation_rate=True), ValueError, PAIR.format("dilation_rate") + "True"),
    ("dilation_huge", dict(dilation_rate=2**31), ValueError, TOO_LARGE.format("dilation_rate") + "2147483648"),
    ("window_huge", dict(dilation_rate=2**30), ValueError, r"Expected a window of fewer than 2\^31 .*=\(1073741824, "),
    ("padding_array", dict(padding=np.array(["same"])), ValueError, r"Expected `padding` to be one of .*array"),
    ("padding_list", dict(padding=["same"]), ValueError, r"Expected `padding` to be one of .*\['same'\]"),
    ("data_format_array", dict(data_format=np.ones(2)), ValueError, r"Expected `data_format` to be one of .*array"),
    ("padding", dict(padding="full"), ValueError, r"Expected `padding` to be one of 'same', 'valid'\. .*'full'"),
    ("padding_none", dict(padding=None), ValueError, r"Expected `padding` to be one of .*None"),
    ("data_format", dict(data_format="NHWC"), ValueError, r"Expected `data_format` to be one of .*'NHWC'"),
    ("inputs_rank", dict(inputs=X[0]), ValueError, r"Expected `inputs` to have rank 4 .*\(5, 6, 4\)"),
    ("inputs_scalar", dict(inputs=np.float32(1)), ValueError, r"Expected `inputs` to have rank 4 .*\(\)"),
    ("inputs_integer", dict(inputs=X.astype(int)), TypeError, r"Expected `inputs` to have a dtype of .*int64"),
    ("inputs_complex", dict(inputs=X.astype(complex)), TypeError, r"Expected `inputs` to have a dtype .*complex128"),
    ("inputs_text", dict(inputs="image"), TypeError, r"Expected `inputs` to .*string"),
    ("inputs_ragged", dict(inputs=[[1.0], [1.0, 2.0]]), TypeError, r"Expected `inputs` to be a tensor.*list"),
    ("inputs_none", dict(inputs=None), TypeError, r"Expected `inputs` to be a tensor.*None"),
    ("batch", dict(inputs=X[:1]), ValueError, r"Expected `.*filters` to have shape \(batch=1.*\(2, "),
]
HEADS = r"Expected `heads` to be a positive integer\. Received: heads="
WITH_HEADS = [
    ("heads_zero", dict(heads=0), ValueError, HEADS + "0"),
    ("heads_float", dict(heads=2.0), ValueError, HEADS + "2.0"),
    ("heads_boolean", dict(heads=True), ValueError, HEADS + "True"),
    ("heads_huge", dict(heads=2**31), ValueError, TOO_LARGE.format("heads") + "2147483648"),
    ("taps_huge", dict(heads=2**29), ValueError, r"Expected a window of fewer than 2\^31 taps .*heads=536870912"),
    ("heads_pair", dict(heads=(2, 2)), ValueError, HEADS + r"\(2, 2\)"),
    ("heads_divide", dict(heads=3), ValueError, r"Expected `heads` to divide the channels\. .*heads=3, channels=4"),
    ("heads_depth", dict(heads=2), ValueError, r"filters` to have shape .*heads\*kernel_h\*kernel_w=18.*9\)"),
]


def grow(value, axis):
    """Makes an array larger by one along an axis."""
    return np.concatenate([value, value.take([0], axis)], axis)


SPECIFIC = {
    "local_filter2d": [
        ("window_even", dict(kernel_size=2), ValueError, r"Expected `kernel_size` to be odd.*\(2, 2\)"),
        ("window_zero", dict(kernel_size=(3, 0)), ValueError, PAIR.format("kernel_size")),
        ("window_boolean", dict(kernel_size=True), ValueError, PAIR.format("kernel_size") + "True"),
        ("window_beyond", dict(kernel_size=2**31 + 1), ValueError, TOO_LARGE.format("kernel_size") + "2147483649"),
        ("normalization_array", dict(normalization=S), ValueError, r"Expected `normalization` to be one of None,"),
        ("window_depth", dict(kernel_size=5), ValueError, r"kernel_h\*kernel_w=25\).*\(2, 5, 6, 9\)"),
        ("normalization", dict(normalization="sigmoid"), ValueError, r"Expected `normalization` to be .*'sigmoid'"),
        ("filters_rank", dict(filters=S[0]), ValueError, r"Expected `filters` to have rank 4 .*\(5, 6, 9\)"),
        ("filters_height", dict(filters=grow(S, 1)), ValueError, r"out_height=5, .*\(2, 6, 6, 9\)"),
        ("filters_width", dict(filters=grow(S, 2)), ValueError, r"out_width=6, .*\(2, 5, 7, 9\)"),
        ("filters_stride", dict(strides=2), ValueError, r"out_height=3, out_width=3, .*\(2, 5, 6, 9\)"),
        ("filters_valid", dict(padding="valid"), ValueError, r"out_height=3, out_width=4, .*\(2, 5, 6, 9\)"),
        ("filters_dtype", dict(filters=S.astype(float)), TypeError, r"dtype of `inputs`, float32\. Received: float64"),
        ("filters_layout", dict(data_format="channels_first"), ValueError, r"Expected `filters` to have shape"),
    ],
    "dynamic_depthwise_conv2d": [
        ("filters_rank", dict(filters=C[0]), ValueError, r"Expected `filters` to have shape \(batch, .*\(3, 3, 4\)"),
        ("filters_even", dict(filters=C[:, :2]), ValueError, r"Expected `kernel_size` to be odd.*\(2, 3\)"),
        ("filters_channels", dict(filters=grow(C, 3)), ValueError, r"channels=4\).*\(2, 3, 3, 5\)"),
        ("filters_dtype", dict(filters=C.astype(np.float16)), TypeError, r"float32\. Received: float16"),
    ],
    "ddf2d": [
        ("combine", dict(combine="max"), ValueError, r"Expected `combine` to be one of 'mul', 'add'\. .*'max'"),
        ("channel_rank", dict(channel_filters=C[0]), ValueError, r"Expected `channel_filters` to have shape"),
        ("channel_channels", dict(channel_filters=grow(C, 3)), ValueError, r"`channel_filters`.*\(2, 3, 3, 5\)"),
        ("channel_even", dict(channel_filters=grow(C, 2)), ValueError, r"Expected `kernel_size` to be odd.*\(3, 4\)"),
        ("spatial_rank", dict(spatial_filters=S[0]), ValueError, r"Expected `spatial_filters` to have rank 4"),
        (
            "spatial_size",
            dict(spatial_filters=S[:, :4]),
            ValueError,
            r"`spatial_filters`.*out_height=5.*\(2, 4, 6, 9\)",
        ),
        ("spatial_dtype", dict(spatial_filters=S.astype(float)), TypeError, r"Expected `spatial_filters`.*float64"),
    ],
    "dynamic_conv2d": [
        ("filters_rank", dict(filters=C), ValueError, r"Expected `filters` to have rank 5 .*\(2, 3, 3, 4\)"),
        ("filters_channels", dict(filters=grow(BANK, 3)), ValueError, r"channels=4, .*\(2, 3, 3, 5, 3\)"),
        ("filters_dtype", dict(filters=BANK.astype(float)), TypeError, r"Expected `filters` .*float32\. .*float64"),
        ("filters_empty", dict(filters=BANK[:, :0]), ValueError, r"Expected `kernel_size` to be a positive integer"),
    ],
    "local_conv2d": [
        ("filters_rank", dict(filters=BANK), ValueError, r"Expected `filters` to have rank 7 .*\(2, 3, 3, 4, 3\)"),
        ("filters_dtype", dict(filters=BANKS.astype(float)), TypeError, r"Expected `filters` .*float32\. .*float64"),
        ("filters_size", dict(filters=BANKS[:, 1:]), ValueError, r"out_height=5, .*\(2, 4, 6, 3, 3, 4, 3\)"),
        ("filters_even", dict(filters=BANKS[:, :, :, 1:]), ValueError, r"Expected `kernel_size` to be odd"),
        ("filters_channels", dict(filters=grow(BANKS, 5)), ValueError, r"channels=4, .*\(2, 5, 6, 3, 3, 5, 3\)"),
    ],
}


def not_tensors(function):
    """Yields rows with values that cannot become a tensor, for every filter argument."""
    for name in VALID[function]:
        if name.endswith("filters"):
            for label, value in {"none": None, "text": "filters", "ragged": [[1.0], [1.0, 2.0]]}.items():
                message = rf"Expected `{name}` to be a tensor\. Received: {type(value).__name__}: "
                yield f"{name}_{label}", {name: value}, TypeError, message
            ragged = tf.RaggedTensor.from_row_splits([1.0, 2.0, 3.0], [0, 1, 3])
            yield (
                f"{name}_ragged_tensor",
                {name: ragged},
                TypeError,
                rf"Expected `{name}` to be a tensor\. Received: Ragg",
            )


TABLE = [
    pytest.param(function, *row[1:], id=f"{function}-{row[0]}")
    for function in VALID
    for row in [
        *ALL_OPS,
        *(WITH_HEADS if function in ("local_filter2d", "ddf2d") else []),
        *SPECIFIC[function],
        *not_tensors(function),
    ]
]


@pytest.mark.parametrize("function", VALID)
def test_valid_arguments(function):
    getattr(ops, function)(**VALID[function])


@pytest.mark.parametrize("function,changes,error,message", TABLE)
def test_eager(function, changes, error, message):
    with pytest.raises(error, match=message):
        getattr(ops, function)(**{**VALID[function], **changes})


@pytest.mark.parametrize("function,changes,error,message", TABLE)
def test_traced(function, changes, error, message):
    """Tracing a graph raises the error, before the graph runs."""

    @tf.function(autograph=False)
    def traced():
        return getattr(ops, function)(**{**VALID[function], **changes})

    with pytest.raises(error, match=message):
        traced.get_concrete_function()


@pytest.mark.parametrize("name", cases.OPS)
@pytest.mark.parametrize("wrong", ["batch", "channels", "result"])
def test_wrong_sizes_at_run_time(name, wrong, implementation):
    """A function that was traced with unknown sizes raises an error of TensorFlow when it runs."""
    op, case = cases.OPS[name], cases.Case("case", (2, 5, 6, 4))
    arrays = cases.operands(op, case)
    if wrong == "batch":
        arrays[0] = arrays[0][:1].repeat(3, axis=0)
    elif wrong == "channels" and set(op.roles) & {"channel", "bank", "banks"}:
        arrays[0] = arrays[0][..., :3]
    elif wrong == "result" and set(op.roles) & {"spatial", "banks"}:
        arrays[0] = arrays[0][:, :4]
    else:
        pytest.skip("this op has no operand of this size")
    specs = [tf.TensorSpec(cases.unknown_sizes(array.shape, role)) for array, role in zip(arrays, op.roles)]
    with keras_dynfilter.implementation(implementation):
        traced = tf.function(lambda *tensors: cases.apply(op, case, tensors), input_signature=specs)
        with pytest.raises(tf.errors.InvalidArgumentError):
            traced(*cases.tensors(arrays, "float32"))


@pytest.mark.parametrize("function", VALID)
def test_arrays_lists_and_variables_are_converted(function):
    arguments = VALID[function]
    expected = getattr(ops, function)(**arguments)
    arrays = [name for name, value in arguments.items() if isinstance(value, np.ndarray)]
    for convert in (np.ndarray.tolist, tf.constant, tf.Variable):
        changed = {name: convert(value) if name in arrays else value for name, value in arguments.items()}
        np.testing.assert_array_equal(getattr(ops, function)(**changed), expected)


def test_unknown_window_is_refused():
    """The shape of channel filters defines the window."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 4])])
    def traced(filters):
        return ops.dynamic_depthwise_conv2d(tf.constant(X), filters)

    with pytest.raises(ValueError, match="with a known window"):
        traced.get_concrete_function()


@pytest.mark.parametrize(
    "value, bounds, text",
    [
        (0, dict(above=0), "a positive number. Received: x=0"),
        (-1, dict(at_least=0), "a non-negative number. Received: x=-1"),
        (64, dict(at_least=0, below=64), "a number of at least 0 and below 64. Received: x=64"),
        (2, dict(above=0, at_most=1), "a number above 0 and at most 1. Received: x=2"),
        (np.nan, {}, "a finite number. Received: x=nan"),
        (np.inf, dict(above=0), "a positive number. Received: x=inf"),
        (True, dict(above=0), "a positive number. Received: x=True"),
        ("1", {}, "a finite number. Received: x='1'"),
        (0, dict(above=0, expected="'relu' or a positive number"), "'relu' or a positive number. Received: x=0"),
    ],
)
def test_wrong_numbers(value, bounds, text):
    with pytest.raises(ValueError, match=re.escape(f"Expected `x` to be {text}")):
        checks.number(value, "x", **bounds)


def test_numbers_become_floats():
    assert [checks.number(value, "x", at_least=0, at_most=1) for value in (0, 1, np.float32(0.5))] == [0.0, 1.0, 0.5]
    assert type(checks.number(np.int64(3), "x")) is float


def test_conversion_of_shapes_between_data_formats():
    assert layout.shape_to_channels_last((2, 3, None, 5)) == (2, None, 5, 3)
    assert layout.shape_to_channels_first(tf.TensorShape([2, None, 5, 3])) == (2, 3, None, 5)
    images = tf.zeros((2, 3, 4, 5))
    assert layout.shape_to_channels_last(images.shape) == tuple(layout.to_channels_last(images).shape)
    assert layout.shape_to_channels_first(images.shape) == tuple(layout.to_channels_first(images).shape)


@pytest.mark.parametrize("name", VALID)
def test_docstring_example(name):
    function = getattr(ops, name)
    (example,) = doctest.DocTestFinder().find(function, name, globs={name: function, "np": np})
    assert len(example.examples) >= 2
    doctest.DebugRunner().run(example)
