# SPDX-License-Identifier: Apache-2.0
"""Runs an exported LiteRT file. Needs NumPy and ai-edge-litert, not TensorFlow.

python litert_runner.py model.tflite inputs.npy expected.npy --output output_0
"""

import importlib.metadata

import check
from ai_edge_litert.interpreter import Interpreter


def load(args):
    runner = Interpreter(args.model, num_threads=args.threads).get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    version = importlib.metadata.version("ai-edge-litert")
    return f"LiteRT {version}", lambda array: runner(**{name: array})[args.output]


if __name__ == "__main__":
    check.main(__doc__, load)
