# SPDX-License-Identifier: Apache-2.0
"""The raw ops as data: valid calls, and changes to them that an op has to refuse. Raw ops can be reached from any
SavedModel, so what the Python functions check does not count here.

    python raw_ops.py       calls every raw op with every bad argument, in one process that has to survive
"""

import dataclasses
import sys

import numpy as np
import tensorflow as tf

from tests.support import cases, reference


@dataclasses.dataclass(frozen=True)
class RawOp:
    """A raw op with its inputs as `(argument, kind)`, and the kind of its result."""

    name: str
    arguments: tuple
    result: str
    weight: str

    @property
    def kinds(self):
        return tuple(kind for _, kind in self.arguments)

    def __call__(self, library, call):
        function = getattr(library, f"keras_dynfilter_{self.name}")
        inputs = {argument: call.inputs[kind] for argument, kind in self.arguments}
        return function(**inputs, **call.attributes)


def _family(stem, weight, factors):
    """The forward op and its gradients. `factors` are `(argument, kind)`, in the order of the op."""
    size, inputs, grad = ("input_size", "input_size"), ("inputs", "inputs"), ("grad", "grad")
    yield RawOp(stem, (inputs, *factors), "grad", weight)
    yield RawOp(f"{stem}_grad_inputs", (size, *factors, grad), "inputs", weight)
    if weight == "add":  # the gradients by its terms are those of the terms alone
        return
    for argument, kind in factors:
        others = factors if weight == "softmax" else tuple(f for f in factors if f[1] != kind)
        yield RawOp(f"{stem}_grad_{argument}", (inputs, *others, grad), kind, weight)


SPATIAL, CHANNEL = ("filters", "spatial"), ("filters", "channel")
DDF = (("channel_filters", "channel"), ("spatial_filters", "spatial"))
OPS = (
    *_family("local_filter2d", "spatial", (SPATIAL,)),
    *_family("softmax_local_filter2d", "softmax", (SPATIAL,)),
    *_family("dynamic_depthwise_conv2d", "channel", (CHANNEL,)),
    *_family("ddf2d", "mul", DDF),
    *_family("ddf2d", "add", DDF),
)


@dataclasses.dataclass
class Call:
    """Inputs by kind and attributes of one call."""

    inputs: dict
    attributes: dict


CASE = cases.Case("raw", (2, 5, 6, 4), (3, 5), (2, 1), (1, 2), heads=2)


def arrays(case):
    """One array of every kind, which fit together."""
    values = {kind: cases.values(case.operand_shape(kind), kind) for kind in ("inputs", "spatial", "channel")}
    values["grad"] = cases.values((case.shape[0], *case.out_size, case.shape[3]), "grad")
    return values


def valid_call(op, case=CASE, dtype="float32"):
    inputs = {kind: cases.tensors([array], dtype)[0] for kind, array in arrays(case).items()}
    inputs["input_size"] = tf.constant(case.shape[1:3], tf.int64)
    attributes = dict(padding=case.padding)
    for name, pair in (("kernel", case.kernel_size), ("stride", case.strides), ("dilation", case.dilation_rate)):
        attributes[f"{name}_h"], attributes[f"{name}_w"] = pair
    if op.weight != "channel":
        attributes["heads"] = case.heads
    if op.weight in ("mul", "add") and op.result in ("grad", "inputs"):
        attributes["combine"] = op.weight
    return Call({kind: inputs[kind] for kind in op.kinds}, attributes)


def expected(op, case=CASE):
    """The true result of `valid_call`, and the sum of the absolute values of its terms."""
    results = []
    for convert in (np.asarray, np.abs):
        given = {kind: convert(array) for kind, array in arrays(case).items()}
        given["spatial"] = arrays(case)["spatial"] if op.weight == "softmax" else given["spatial"]
        factors = (
            given["inputs"],
            None if op.weight == "channel" else given["spatial"],
            given["channel"] if op.weight in ("channel", "mul", "add") else None,
        )
        geometry = dict(case.geometry, heads=case.heads)
        output = reference.filter2d(*factors, op.weight, **geometry)
        gradients = reference.filter2d_gradients(*factors, op.weight, given["grad"], **geometry)
        results.append(dict(zip(("inputs", "spatial", "channel"), gradients), grad=output)[op.result])
    return results[0], np.abs(results[1])


def grown(kind, axis, by=1):
    """A change of one size of an input; None where the op does not have it, or nothing tells what it should be."""

    def change(op, call):
        if kind not in op.kinds:
            return None
        others = [other for other in op.kinds if other not in (kind, "input_size")]
        if (axis == 0 and not others) or (axis == 3 and kind == "inputs" and not {"grad", "channel"} & set(others)):
            return None
        if axis == 3 and kind == "grad" and not {"inputs", "channel"} & set(others):
            return None
        if axis in (1, 2) and kind == "inputs" and not {"grad", "spatial"} & set(others):
            return None
        paddings = [[0, by if a == axis else 0] for a in range(4)]
        return Call({**call.inputs, kind: tf.pad(call.inputs[kind], paddings)}, call.attributes)

    return change


def ranked(kind, reshape):
    def change(op, call):
        if kind not in op.kinds:
            return None
        return Call({**call.inputs, kind: reshape(call.inputs[kind])}, call.attributes)

    return change


def attributes(**changes):
    def change(op, call):
        if not set(changes) <= set(call.attributes):
            return None
        return Call(call.inputs, {**call.attributes, **changes})

    return change


def image_size(*values):
    def change(op, call):
        if "input_size" not in op.kinds:
            return None
        return Call({**call.inputs, "input_size": tf.constant(values, tf.int64)}, call.attributes)

    return change


def described(**changes):
    """Another window or other heads; the op has to have filters that contradict them."""

    def change(op, call):
        told = {"spatial"} if "heads" in changes else {"spatial", "channel"}
        return attributes(**changes)(op, call) if told & set(op.kinds) else None

    return change


def both(*changes):
    def change(op, call):
        for one in changes:
            call = call and one(op, call)
        return call

    return change


def _odd_heads(op, call):
    """Heads that do not divide the channels, with spatial filters of that many heads."""
    if "heads" not in call.attributes:
        return None
    inputs = dict(call.inputs)
    if "spatial" in inputs:
        inputs["spatial"] = tf.concat([inputs["spatial"], inputs["spatial"][..., :15]], axis=-1)
    return Call(inputs, {**call.attributes, "heads": 3})


KINDS = ("inputs", "spatial", "channel", "grad")
SHAPES = {
    "heads_that_do_not_divide": _odd_heads,
    **{f"{kind}_scalar": ranked(kind, lambda x: x[0, 0, 0, 0]) for kind in KINDS},
    **{f"{kind}_rank_3": ranked(kind, lambda x: x[0]) for kind in KINDS},
    **{f"{kind}_rank_5": ranked(kind, lambda x: x[None]) for kind in KINDS},
    **{f"{kind}_axis_{axis}": grown(kind, axis, 2) for kind in KINDS for axis in range(4)},
    "input_size_scalar": ranked("input_size", lambda x: x[0]),
    "input_size_matrix": ranked("input_size", lambda x: x[None]),
    "input_size_short": image_size(5),
    "input_size_long": image_size(5, 6, 4),
    "input_size_empty": ranked("input_size", lambda x: x[:0]),
}
VALUES = {
    "input_size_negative": image_size(-5, 6),
    "input_size_both_negative": image_size(-5, -6),
    "input_size_too_high": image_size(7, 6),
    "input_size_too_narrow": image_size(5, 4),
    "input_size_zero": image_size(0, 0),
    "input_size_beyond_int32": image_size(2**31 + 5, 6),
    "input_size_beyond_all": image_size(2**63 - 1, 2**63 - 1),
    "input_size_least": image_size(-(2**63), -(2**63)),
}
ATTRIBUTES = {
    **{f"{name}_{value}": attributes(**{name: value}) for name in ("kernel_h", "kernel_w") for value in (2, 0, -1)},
    **{
        f"{name}_{value}": attributes(**{name: value})
        for name in ("stride_h", "stride_w", "dilation_h", "dilation_w", "heads")
        for value in (0, -1, -(2**63))
    },
    "kernel_h_other": described(kernel_h=5),
    "kernel_w_other": described(kernel_w=7),
    "heads_other": described(heads=4),
    "padding": attributes(padding="full"),
    "combine": attributes(combine="max"),
}
HUGE = {
    **{
        f"{name}_{text}": attributes(**{name: value})
        for name in ("kernel_h", "kernel_w", "heads")
        for text, value in {"int32": 2**31 - 1, "beyond_int32": 2**32 + 1, "int64": 2**63 - 1}.items()
    },
    "taps_that_overflow": attributes(kernel_h=2**32 + 1, kernel_w=2**32 + 1),
    "taps_and_heads_that_overflow": attributes(kernel_h=2**31 - 1, kernel_w=2**31 - 1, heads=2**31 - 1),
    "taps_that_wrap_to_15": attributes(kernel_h=2**62 + 3, kernel_w=5),
    "window_that_overflows": attributes(kernel_h=3, dilation_h=2**63 - 1),
    "window_that_wraps": attributes(kernel_w=5, dilation_w=2**62 + 1),
    "window_beyond_int32": attributes(kernel_h=3, dilation_h=2**31 - 1, dilation_w=2**31 - 1),
    "stride_int64": attributes(stride_h=2**63 - 1, stride_w=2**63 - 1),
    "image_and_stride": both(image_size(2**62, 2**62), attributes(stride_h=2**62, stride_w=2**62)),
    "image_of_terabytes": both(image_size(2**40, 6), attributes(stride_h=2**31 - 1)),
    "image_of_an_overflow": both(image_size(2**40, 2**40), attributes(stride_h=2**31 - 1, stride_w=2**31 - 1)),
}
REFUSED = {**SHAPES, **VALUES, **ATTRIBUTES, **HUGE}


def refused(op, table=REFUSED):
    """Yields `(name, call)` of all bad calls of the table that apply to `op`."""
    for name, change in table.items():
        call = change(op, valid_call(op))
        if call is not None:
            yield name, call


def survive():
    """Calls everything; returns how many calls were refused, and prints those that were not."""
    from keras_dynfilter.ops.backends import library as library_module

    library = library_module.load().ops
    count = 0
    for op in OPS:
        for name, call in refused(op):
            print(f"{op.name} {name}", flush=True)
            try:
                op(library, call)
            except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError):
                count += 1
            else:
                print(f"ACCEPTED {op.name} {name}", flush=True)
    print(f"refused {count}", flush=True)


if __name__ == "__main__":
    sys.exit(survive())
