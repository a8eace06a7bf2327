# SPDX-License-Identifier: Apache-2.0
"""Runs a portable SavedModel through its signature, as TensorFlow Serving does. Needs TensorFlow and NumPy.

keras_dynfilter cannot be imported here, even if the interpreter has it.

    python saved_model_runner.py model inputs.npy expected.npy --output output_0
"""

import sys

import check
import tensorflow as tf


def load(args):
    sys.modules["keras_dynfilter"] = None  # an import raises
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    serve = tf.saved_model.load(args.model).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    return f"TensorFlow {tf.__version__}", lambda array: serve(**{name: tf.constant(array)})[args.output].numpy()


if __name__ == "__main__":
    check.main(__doc__, load, allowed=check.ABSENT)
