# SPDX-License-Identifier: Apache-2.0
"""Prints digests of all results and gradients.

python -m tests.support.determinism THREADS IMPLEMENTATION
"""

import hashlib
import sys

import tensorflow as tf

import keras_dynfilter
from tests.support import cases

# Large enough to be split among several threads. Gradients sum over the image; atomic additions would sum in a random
# order.
SHAPES = (
    cases.Case("channels", (2, 37, 29, 40), heads=2),
    cases.Case("one_channel", (2, 45, 31, 1), (9, 9)),
    cases.Case("strides", (1, 61, 53, 24), (3, 5), (2, 3), heads=3),
)


def digests(dtype):
    """Yields `(name, digest)` of all results."""
    for name, op in cases.OPS.items():
        for case in SHAPES:
            tensors = cases.tensors(cases.operands(op, case), dtype)
            (upstream,) = cases.tensors([cases.values(case.output_shape(op), "grad")], dtype)
            results = [cases.apply(op, case, tensors), *cases.gradients(op, case, tensors, upstream)]
            for role, result in zip(("outputs", *op.roles), results):
                bits = tf.bitcast(result, {2: tf.uint16, 4: tf.uint32}[result.dtype.size])
                yield f"{name} {case.name} {dtype} {role}", hashlib.sha256(bits.numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    with keras_dynfilter.implementation(sys.argv[2]):
        for dtype in ("float32", "bfloat16"):
            for line in digests(dtype):
                print(*line)
