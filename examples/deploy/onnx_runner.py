# SPDX-License-Identifier: Apache-2.0
"""Runs an exported ONNX file. Needs NumPy and onnxruntime, or onnxruntime-gpu with `--provider cuda`.

python onnx_runner.py model.onnx inputs.npy expected.npy --output output_0 --library libkeras_dynfilter_ort.so
"""

import check
import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load(args):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    if args.library:
        options.register_custom_ops_library(args.library)
    provider = PROVIDERS[args.provider]
    if args.provider == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # takes CUDA from the wheels of the environment
    session = onnxruntime.InferenceSession(args.model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"onnxruntime has no {provider} here: install onnxruntime-gpu with CUDA and cuDNN")
    (name,) = (value.name for value in session.get_inputs())
    return f"onnxruntime {onnxruntime.__version__}", lambda array: session.run([args.output], {name: array})[0]


if __name__ == "__main__":
    check.main(__doc__, load)
