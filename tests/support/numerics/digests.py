# SPDX-License-Identifier: Apache-2.0
"""Prints digests of outputs and gradients of first and second order, of normal and of subnormal values.

python -m tests.support.numerics.digests [--threads N] [--implementation native] [--dtypes float32 ...] [--library FILE]
"""

import argparse
import hashlib
import zlib

import numpy as np
import tensorflow as tf

import keras_dynfilter
from keras_dynfilter.ops.backends import library
from tests.support import cases
from tests.support.numerics import implementations, problems

# Large enough to be split among several threads. Gradients sum over the image; atomic additions would sum in a random
# order. The numbers of channels make every CPU kernel run, with vectors of any width.
CASES = (
    cases.Case("channels", (2, 37, 29, 40), heads=2),
    cases.Case("whole_vectors", (1, 31, 33, 64), (5, 5)),
    cases.Case("few_channels", (2, 41, 37, 4), (5, 3)),
    cases.Case("one_channel", (2, 45, 31, 1), (9, 9)),
    cases.Case("strides", (1, 61, 53, 24), (3, 5), (2, 3), heads=3),
)
# The other ops consist of TensorFlow's matrix products.
OPS = (*cases.FILTER_OPS, "project_and_pool")
ORDERS = ("output", "first", "second")
BITS = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}


def digests(dtype, distributions=("normal", "subnormal")):
    """Yields `(name, digest)` of all results. A name consists of op, case, distribution, dtype, order and operand."""
    for op in OPS:
        for case in CASES:
            signature = problems.Signature(op, case, dtype)
            names = [["output", "means"], signature.roles, (*signature.roles, "upstream", "upstream_means")]
            for distribution in distributions:
                key = f"{op} {case.name} {distribution}"
                problem = problems.with_values(signature, distribution, np.random.default_rng(zlib.crc32(key.encode())))
                results = implementations.results(signature, *implementations.tensors(problem))
                for order, result_names, values in zip(ORDERS, names, results):
                    for name, value in zip(result_names, values):
                        if value is not None:
                            bits = tf.bitcast(value, BITS[value.dtype.size]).numpy().tobytes()
                            yield f"{key} {dtype} {order} {name}", hashlib.sha256(bits).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of an op (default: %(default)s)")
    parser.add_argument("--implementation", default="native", help="implementation (default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", choices=cases.DTYPES, default=cases.DTYPES, help="dtypes (default: all)")
    parser.add_argument("--library", help="library of compiled ops (default: the one of the package)")
    options = parser.parse_args()
    if options.library:
        chosen = library.Library(ops=tf.load_op_library(options.library))
        library.load = lambda: chosen
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    with keras_dynfilter.implementation(options.implementation):
        for dtype in options.dtypes:
            for line in digests(dtype):
                print(*line)


if __name__ == "__main__":
    main()
