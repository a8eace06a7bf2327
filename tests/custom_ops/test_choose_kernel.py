# SPDX-License-Identifier: Apache-2.0
"""The choice of the kernel on the CPU and on CUDA, for typical problems and at the limits of the rules."""

import ctypes

import pytest

from tests.support.cases import Case
from tests.support.cuda_emulation import harness
from tests.support.cuda_emulation.harness import Job


@pytest.fixture(scope="module")
def choose_cpu(native_library):
    """Returns a function that asks the library for the CPU kernel of a job, and for its choice of streaming stores."""
    function = ctypes.CDLL(native_library.paths[0]).keras_dynfilter_choose_cpu_kernel
    function.restype = ctypes.c_char_p

    def choose(job, lanes):
        streams = ctypes.c_int(-1)
        name = function(harness.pointer(job.problem), ctypes.c_int64(lanes), ctypes.byref(streams))
        return name.decode(), bool(streams.value)

    return choose


def job(kind, derivative, shape, kernel=(3, 3), dtype="float32", **case):
    return Job(Case("", shape, kernel, **case), kind, derivative, dtype, {})


# Each row: filter kind, derivative, shape of the inputs, options of the case, and the expected kernel on a machine
# whose vectors have 16 float32 lanes (AVX-512).
CPU = [
    # Local filters: lanes along the taps if a head has fewer channels than a vector has lanes.
    ("spatial", "output", (1, 20, 20, 1), {}, "tap_lanes"),
    ("spatial", "inputs", (1, 20, 20, 15), {}, "tap_lanes"),
    ("spatial", "spatial", (1, 20, 20, 15), {}, "tap_lanes"),
    ("softmax", "output", (1, 20, 20, 3), {"kernel": (9, 9)}, "tap_lanes"),
    ("softmax", "output", (1, 20, 20, 32), {"heads": 4}, "tap_lanes"),
    ("softmax", "spatial", (1, 20, 20, 16), {}, "channel_lanes"),
    ("spatial", "spatial", (1, 20, 20, 64), {}, "channel_lanes"),
    # Products and sums of factors never have lanes along the taps.
    ("mul", "output", (1, 20, 20, 3), {}, "channel_lanes"),
    ("mul", "spatial", (1, 20, 20, 3), {}, "channel_lanes"),
    ("add", "inputs", (1, 20, 20, 8), {}, "channel_lanes"),
    # Depthwise: lanes along the pixels if the number of channels divides the lanes.
    ("channel", "output", (1, 20, 20, 1), {}, "flat_lanes"),
    ("channel", "inputs", (1, 20, 20, 8), {}, "flat_lanes"),
    ("channel", "channel", (1, 20, 20, 4), {}, "flat_lanes"),
    ("channel", "output", (1, 20, 20, 3), {}, "channel_lanes"),
    ("channel", "channel", (1, 20, 20, 16), {}, "channel_lanes"),
    ("channel", "output", (1, 20, 20, 1), {"strides": (1, 2)}, "channel_lanes"),
    ("channel", "output", (1, 20, 20, 1), {"strides": (2, 1)}, "flat_lanes"),
    # A large window does not fit the memory for pixels. The gradient with respect to the filter does not need this
    # memory.
    ("channel", "output", (1, 40, 40, 1), {"kernel": (17, 17)}, "channel_lanes"),
    ("channel", "channel", (1, 40, 40, 1), {"kernel": (17, 17)}, "flat_lanes"),
    ("channel", "output", (1, 9, 2000, 8), {"kernel": (3, 5), "dilation_rate": (1, 300)}, "channel_lanes"),
    # Tiles of four pixels: three or five columns without stride and dilation, and whole vectors of channels.
    ("spatial", "output", (1, 20, 20, 16), {}, "channel_tiles"),
    ("mul", "inputs", (1, 20, 20, 64), {"kernel": (3, 5), "heads": 2}, "channel_tiles"),
    (
        "channel",
        "output",
        (1, 20, 20, 32),
        {"kernel": (5, 3), "strides": (2, 1), "dilation_rate": (1, 1)},
        "channel_tiles",
    ),
    ("add", "output", (1, 20, 20, 64), {"kernel": (3, 7)}, "channel_lanes"),
    ("mul", "output", (1, 20, 20, 64), {"strides": (1, 2)}, "channel_lanes"),
    # Beyond a stride of 256, few taps of a filter reach the pixels of a tile.
    ("spatial", "inputs", (1, 3, 600, 1), {"strides": (300, 256)}, "tap_lanes"),
    ("softmax", "inputs", (1, 3, 600, 1), {"strides": (1, 257)}, "channel_lanes"),
    ("softmax", "output", (1, 3, 600, 1), {"strides": (1, 257)}, "tap_lanes"),
    ("mul", "output", (1, 20, 20, 64), {"dilation_rate": (1, 2)}, "channel_lanes"),
    ("mul", "output", (1, 20, 20, 40), {}, "channel_lanes"),
    ("mul", "channel", (1, 20, 20, 64), {}, "channel_lanes"),
]


def row_id(row):
    kind, derivative, shape, case, *_ = row
    return "-".join([kind, derivative, "x".join(map(str, shape)), *(f"{name}={value}" for name, value in case.items())])


@pytest.mark.parametrize("row", CPU, ids=row_id)
def test_cpu(row, choose_cpu):
    kind, derivative, shape, case, expected = row
    assert choose_cpu(job(kind, derivative, shape, **case), 16) == (expected, False)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_cpu_limits_follow_the_width_of_the_vectors(lanes, choose_cpu):
    for channels, expected in ((lanes - 1, "tap_lanes"), (lanes, "channel_tiles"), (lanes + 1, "channel_lanes")):
        assert choose_cpu(job("spatial", "output", (1, 8, 8, channels)), lanes)[0] == expected
    for channels, expected in ((lanes // 2, "flat_lanes"), (lanes, "channel_tiles"), (lanes - 1, "channel_lanes")):
        assert choose_cpu(job("channel", "output", (1, 8, 8, channels)), lanes)[0] == expected


@pytest.mark.parametrize("dtype, itemsize", [("float32", 4), ("float64", 8), ("float16", None), ("bfloat16", None)])
def test_cpu_streams_results_of_16_mebibytes(dtype, itemsize, choose_cpu):
    pixels = 2**24 // 64 // (itemsize or 1)
    for derivative in ("output", "inputs"):
        large, small = (job("mul", derivative, (1, 1, width, 64), dtype=dtype) for width in (pixels, pixels - 1))
        assert choose_cpu(large, 16) == ("channel_tiles", itemsize is not None)
        assert choose_cpu(small, 16) == ("channel_tiles", False)
    part_of_a_vector = job("mul", "output", (1, 1, pixels, 72), dtype=dtype)
    assert choose_cpu(part_of_a_vector, 16) == ("channel_lanes", False)


HOPPER_SHARED = 227 * 1024  # the largest shared memory of a block on Hopper, in bytes
# Each row: filter kind, derivative, shape of the inputs, options of the case and of the device, and the expected kernel
# with its options: the elements per access, and the columns of the window and the channels of a head for which it is
# compiled.
CUDA = [
    # Spatial filters over up to 15 channels per head, if the filters of a warp fit shared memory.
    ("spatial", "output", (1, 20, 20, 1), {}, ("filter_per_thread", 0, 0, 1)),
    ("softmax", "inputs", (1, 20, 20, 4), {}, ("filter_per_thread", 0, 0, 4)),
    ("mul", "spatial", (1, 20, 20, 15), {}, ("filter_per_thread", 0, 0, 16)),
    ("add", "output", (1, 20, 20, 64), {"heads": 16}, ("filter_per_thread", 0, 0, 4)),
    ("spatial", "output", (1, 20, 20, 1), {"kernel": (41, 41)}, ("filter_per_thread", 0, 0, 1)),
    ("spatial", "output", (1, 60, 60, 1), {"kernel": (43, 43)}, ("gather", 1, 0, 0)),
    ("spatial", "output", (1, 20, 20, 1), {"max_shared": 1151}, ("gather", 1, 3, 0)),
    ("spatial", "output", (1, 20, 20, 1), {"max_shared": 1152}, ("filter_per_thread", 0, 0, 1)),
    ("spatial", "inputs", (1, 20, 2000, 1), {"kernel": (3, 99), "dilation_rate": (1, 10)}, ("gather", 1, 0, 0)),
    ("spatial", "spatial", (1, 20, 20, 1), {"max_shared": 64}, ("spatial_gradient", 1, 3, 0)),
    # More channels per head: wide accesses if the channels and the addresses allow them.
    ("spatial", "output", (1, 20, 20, 16), {}, ("gather", 4, 3, 0)),
    ("spatial", "output", (1, 20, 20, 18), {}, ("gather", 1, 3, 0)),
    ("mul", "inputs", (1, 20, 20, 64), {"kernel": (3, 5), "dtype": "float16"}, ("gather", 8, 5, 0)),
    ("mul", "inputs", (1, 20, 20, 64), {"kernel": (3, 5), "dtype": "float16", "alignment": 8}, ("gather", 1, 5, 0)),
    ("add", "output", (1, 20, 20, 64), {"dtype": "float64"}, ("gather", 2, 3, 0)),
    ("add", "output", (1, 20, 20, 64), {"heads": 2, "kernel": (3, 7)}, ("gather", 4, 0, 0)),
    ("mul", "output", (1, 20, 20, 64), {"strides": (1, 2)}, ("gather", 4, 0, 0)),
    ("mul", "output", (1, 20, 20, 64), {"dilation_rate": (1, 2)}, ("gather", 4, 0, 0)),
    ("mul", "output", (1, 20, 20, 64), {"strides": (2, 1), "dilation_rate": (1, 1)}, ("gather", 4, 3, 0)),
    ("softmax", "spatial", (1, 20, 20, 64), {}, ("spatial_gradient", 4, 3, 0)),
    ("mul", "spatial", (1, 20, 20, 64), {"kernel": (3, 5)}, ("spatial_gradient", 4, 0, 0)),
    # Channel filters. Their gradient has an accumulator for every element of an access.
    ("channel", "output", (1, 20, 20, 1), {}, ("gather", 1, 3, 0)),
    ("channel", "inputs", (1, 20, 20, 8), {"kernel": (5, 5)}, ("gather", 4, 5, 0)),
    ("channel", "channel", (1, 20, 20, 8), {}, ("channel_gradient", 4, 3, 0)),
    ("mul", "channel", (1, 20, 20, 64), {"heads": 32, "kernel": (5, 5)}, ("channel_gradient", 1, 0, 0)),
    ("mul", "channel", (1, 20, 20, 64), {"dtype": "bfloat16", "alignment": 8}, ("channel_gradient", 4, 3, 0)),
    ("mul", "channel", (1, 20, 20, 64), {"dtype": "bfloat16", "alignment": 4}, ("channel_gradient", 1, 3, 0)),
    ("mul", "channel", (1, 20, 20, 64), {"dtype": "float64"}, ("channel_gradient", 2, 3, 0)),
    # Large strides.
    ("spatial", "inputs", (1, 40, 40, 1), {"strides": (16, 16)}, ("filter_per_thread", 0, 0, 1)),
    ("spatial", "inputs", (1, 40, 40, 1), {"strides": (1, 17)}, ("strided_inputs", 1, 0, 0)),
    ("channel", "inputs", (1, 40, 40, 64), {"strides": (17, 1)}, ("strided_inputs", 1, 0, 0)),
    ("channel", "output", (1, 40, 40, 64), {"strides": (17, 17)}, ("gather", 4, 0, 0)),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", CUDA, ids=row_id)
def test_cuda(row):
    kind, derivative, shape, options, expected = row
    device = {"alignment": 16, "max_shared": HOPPER_SHARED}
    case = {name: value for name, value in options.items() if name not in device}
    device.update({name: value for name, value in options.items() if name in device})
    assert harness.choose_kernel(job(kind, derivative, shape, **case), **device) == expected
