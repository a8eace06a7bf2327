# SPDX-License-Identifier: Apache-2.0
"""Valid calls of the raw ops, and changes of these calls that an op has to refuse or to accept. A saved graph can call
a raw op with any arguments, so the ops do not rely on the checks of the Python functions.

    python -m tests.support.raw_ops       calls every raw op with every bad argument; the process must not crash
"""

import dataclasses
import sys

import numpy as np
import tensorflow as tf

from tests.support import cases, reference


@dataclasses.dataclass(frozen=True)
class RawOp:
    """A raw op.

    Attributes:
        name: The name of its Python function, without `keras_dynfilter_`.
        arguments: `(argument, operand)` in the order of the op.
        result: The operand that has the shape of the result; `"grad"` for a forward op.
        kind: The filter kind.
    """

    name: str
    arguments: tuple
    result: str
    kind: str

    @property
    def operands(self):
        return tuple(operand for _, operand in self.arguments)

    def __call__(self, library, call):
        function = getattr(library, f"keras_dynfilter_{self.name}")
        inputs = {argument: call.inputs[operand] for argument, operand in self.arguments}
        return function(**inputs, **call.attributes)


def _family(stem, kind, factors):
    """Yields the forward op and its gradients. `factors` are `(argument, operand)` in the order of the op."""
    size, inputs, grad = ("input_size", "input_size"), ("inputs", "inputs"), ("grad", "grad")
    yield RawOp(stem, (inputs, *factors), "grad", kind)
    yield RawOp(f"{stem}_grad_inputs", (size, *factors, grad), "inputs", kind)
    if kind == "add":  # the other gradients are equal to the gradients of "spatial" and "channel"
        return
    for argument, operand in factors:
        others = factors if kind == "softmax" else tuple(factor for factor in factors if factor[1] != operand)
        yield RawOp(f"{stem}_grad_{argument}", (inputs, *others, grad), operand, kind)


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
    """The inputs of one call, by operand, and its attributes."""

    inputs: dict
    attributes: dict


CASE = cases.Case("raw", (2, 5, 6, 4), (3, 5), (2, 1), (1, 2), heads=2)


def arrays(case):
    """Returns arrays of all operands, with consistent shapes."""
    values = {
        operand: cases.values(case.operand_shape(operand), operand) for operand in ("inputs", "spatial", "channel")
    }
    values["grad"] = cases.values((case.shape[0], *case.out_size, case.shape[3]), "grad")
    return values


def valid_call(op, case=CASE, dtype="float32"):
    """Returns a `Call` with arguments that the op accepts."""
    inputs = {operand: cases.tensors([array], dtype)[0] for operand, array in arrays(case).items()}
    inputs["input_size"] = tf.constant(case.shape[1:3], tf.int64)
    attributes = dict(padding=case.padding)
    for name, pair in (("kernel", case.kernel_size), ("stride", case.strides), ("dilation", case.dilation_rate)):
        attributes[f"{name}_h"], attributes[f"{name}_w"] = pair
    if op.kind != "channel":
        attributes["heads"] = case.heads
    if op.kind in ("mul", "add") and op.result in ("grad", "inputs"):
        attributes["combine"] = op.kind
    return Call({operand: inputs[operand] for operand in op.operands}, attributes)


def expected(op, case=CASE):
    """Returns the exact result of `valid_call`, and the sum of the absolute values of its terms."""
    results = []
    for convert in (np.asarray, np.abs):
        values = {operand: convert(array) for operand, array in arrays(case).items()}
        values["spatial"] = arrays(case)["spatial"] if op.kind == "softmax" else values["spatial"]
        factors = (
            values["inputs"],
            None if op.kind == "channel" else values["spatial"],
            values["channel"] if op.kind in ("channel", "mul", "add") else None,
        )
        geometry = dict(case.geometry, heads=case.heads)
        output = reference.filter2d(*factors, op.kind, **geometry)
        gradients = reference.filter2d_gradients(*factors, op.kind, values["grad"], **geometry)
        results.append(dict(zip(("inputs", "spatial", "channel"), gradients), grad=output)[op.result])
    return results[0], np.abs(results[1])


def grown(operand, axis, amount):
    """Returns a change that enlarges an operand along one axis. The change returns None if the op does not have this
    operand, or if no other argument determines the size."""

    def change(op, call):
        if operand not in op.operands:
            return None
        others = [other for other in op.operands if other not in (operand, "input_size")]
        if (axis == 0 and not others) or (axis == 3 and operand == "inputs" and not {"grad", "channel"} & set(others)):
            return None
        if axis == 3 and operand == "grad" and not {"inputs", "channel"} & set(others):
            return None
        if axis in (1, 2) and operand == "inputs" and not {"grad", "spatial"} & set(others):
            return None
        paddings = [[0, amount if a == axis else 0] for a in range(4)]
        return Call({**call.inputs, operand: tf.pad(call.inputs[operand], paddings)}, call.attributes)

    return change


def reshaped(operand, reshape):
    """Returns a change of the rank of an operand."""

    def change(op, call):
        if operand not in op.operands:
            return None
        return Call({**call.inputs, operand: reshape(call.inputs[operand])}, call.attributes)

    return change


def attributes(**changes):
    """Returns a change of attributes."""

    def change(op, call):
        if not set(changes) <= set(call.attributes):
            return None
        return Call(call.inputs, {**call.attributes, **changes})

    return change


def image_size(*values):
    """Returns a change of the operand input_size."""

    def change(op, call):
        if "input_size" not in op.operands:
            return None
        return Call({**call.inputs, "input_size": tf.constant(values, tf.int64)}, call.attributes)

    return change


def contradicting(**changes):
    """Returns a change of the window or the heads that contradicts the shape of the filters. The change returns None
    for other ops."""

    def change(op, call):
        contradicted = {"spatial"} if "heads" in changes else {"spatial", "channel"}
        return attributes(**changes)(op, call) if contradicted & set(op.operands) else None

    return change


def combined(*changes):
    """Returns a change that applies several changes in turn."""

    def change(op, call):
        for change_one in changes:
            call = call and change_one(op, call)
        return call

    return change


def _odd_heads(op, call):
    """Sets a number of heads that does not divide the channels, with spatial filters of that number of heads."""
    if "heads" not in call.attributes:
        return None
    inputs = dict(call.inputs)
    if "spatial" in inputs:
        inputs["spatial"] = tf.concat([inputs["spatial"], inputs["spatial"][..., :15]], axis=-1)
    return Call(inputs, {**call.attributes, "heads": 3})


OPERANDS = ("inputs", "spatial", "channel", "grad")
SHAPES = {
    "heads_that_do_not_divide": _odd_heads,
    **{f"{operand}_scalar": reshaped(operand, lambda x: x[0, 0, 0, 0]) for operand in OPERANDS},
    **{f"{operand}_rank_3": reshaped(operand, lambda x: x[0]) for operand in OPERANDS},
    **{f"{operand}_rank_5": reshaped(operand, lambda x: x[None]) for operand in OPERANDS},
    **{f"{operand}_axis_{axis}": grown(operand, axis, 2) for operand in OPERANDS for axis in range(4)},
    "input_size_scalar": reshaped("input_size", lambda x: x[0]),
    "input_size_matrix": reshaped("input_size", lambda x: x[None]),
    "input_size_short": image_size(5),
    "input_size_long": image_size(5, 6, 4),
    "input_size_empty": reshaped("input_size", lambda x: x[:0]),
}
VALUES = {
    "input_size_negative": image_size(-5, 6),
    "input_size_both_negative": image_size(-5, -6),
    "input_size_too_high": image_size(7, 6),
    "input_size_too_narrow": image_size(5, 4),
    "input_size_zero": image_size(0, 0),
    "input_size_beyond_int32": image_size(2**31 + 5, 6),
    "input_size_max_int64": image_size(2**63 - 1, 2**63 - 1),
    "input_size_min_int64": image_size(-(2**63), -(2**63)),
}
ATTRIBUTES = {
    **{f"{name}_{value}": attributes(**{name: value}) for name in ("kernel_h", "kernel_w") for value in (2, 0, -1)},
    **{
        f"{name}_{value}": attributes(**{name: value})
        for name in ("stride_h", "stride_w", "dilation_h", "dilation_w", "heads")
        for value in (0, -1, -(2**63))
    },
    "kernel_h_other": contradicting(kernel_h=5),
    "kernel_w_other": contradicting(kernel_w=7),
    "heads_other": contradicting(heads=4),
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
    "image_and_stride": combined(image_size(2**62, 2**62), attributes(stride_h=2**62, stride_w=2**62)),
    "image_of_terabytes": combined(image_size(2**40, 6), attributes(stride_h=2**31 - 1)),
    "image_of_an_overflow": combined(image_size(2**40, 2**40), attributes(stride_h=2**31 - 1, stride_w=2**31 - 1)),
}
REFUSED = {**SHAPES, **VALUES, **ATTRIBUTES, **HUGE}


def other_case(*arguments, **options):
    """Returns a change to the valid call of another case."""
    case = cases.Case("other", *arguments, **options)
    return lambda op, call: valid_call(op, case)


HUGE["no_images_but_large_ones"] = REFUSED["no_images_but_large_ones"] = other_case((0, 2**22, 2**22, 32))
# Borderline calls, which an op has to accept.
ACCEPTED = {
    "valid": lambda op, call: call,
    "no_images": other_case((0, 4, 5, 6), heads=2),
    "no_large_images": other_case((0, 2**18, 2**18, 4), heads=2),
    "no_rows": other_case((2, 0, 5, 6), heads=2),
    "no_columns": other_case((2, 4, 0, 6), heads=2),
    "no_channels": other_case((2, 4, 5, 0), heads=2),
    "no_results": other_case((2, 3, 3, 8), (5, 5), padding="valid", heads=2),
    "one_pixel": other_case((1, 1, 1, 1)),
    "a_head_per_channel": other_case((2, 4, 4, 4), heads=4),
    "largest_window": other_case((1, 2, 2, 2), (3, 3), dilation_rate=(2**30 - 1, 2**30 - 1)),
    "largest_strides": other_case((1, 2, 2, 2), (3, 3), strides=(2**31 - 1, 2**31 - 1)),
    "input_size_of_the_same_results": image_size(6, 6),
}


def refused(op, table=REFUSED):
    """Yields `(name, call)` for the bad calls of the table that apply to `op`."""
    for name, change in table.items():
        call = change(op, valid_call(op))
        if call is not None:
            yield name, call


def survive():
    """Makes every bad call. Prints each call before it runs, the calls that were accepted, and the number of refused
    calls."""
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
