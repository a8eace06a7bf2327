# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.repository_onnx`: the filter repository networks in onnxruntime, beside their static twins.

Each network and its twin are exported with standard ops, untrained. A network does what its twin does, and on top of
that the autoencoder with the features, which is timed as a file of its own; what is left is the price of generated
filters: the coefficients, and the mixing.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np

from benchmarks import measure
from keras_dynfilter import export, models

NETWORKS = {
    "mnist": (models.repository_mnist, models.repository_mnist_baseline),
    "mtfl": (models.repository_mtfl, models.repository_mtfl_baseline),
    "cifar10": (models.repository_cifar10, models.repository_cifar10_baseline),
}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repository_onnx", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime; 0: as it likes")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/repository_onnx.jsonl", help="JSON lines go here")
    args = parser.parse_args()
    if min(args.batch_size) < 1:
        parser.error(f"Expected --batch-size to be above zero. Received: {min(args.batch_size)}")
    args.json.parent.mkdir(parents=True, exist_ok=True)

    rows = []
    print(f"{'':<10}{'batch':>6}{'network, ms':>13}{'twin':>9}{'autoencoder':>13}{'network / both':>16}")
    for name in args.only:
        sessions = exported(name, args.threads)
        for batch in args.batch_size:
            ms = {part: milliseconds(session, batch) for part, session in sessions.items()}
            ratio = ms["network"] / (ms["twin"] + ms["generator"])
            rows.append({"network": name, "batch": batch, "ms": ms, "of_both": ratio})
            numbers = f"{ms['network']:>13.2f}{ms['twin']:>9.2f}{ms['generator']:>13.2f}{ratio:>16.2f}"
            print(f"{name:<10}{batch:>6}{numbers}", flush=True)
    args.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"\nJSON lines: {args.json}")


def exported(name, threads):
    """onnxruntime sessions of the network, of its twin, and of the autoencoder with the features."""
    import onnxruntime

    make, make_twin = NETWORKS[name]
    network = make()
    parts = {"network": network, "twin": make_twin(), "generator": network.get_layer("generator")}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for part, model in parts.items():
            path = pathlib.Path(folder) / f"{part}.onnx"
            export.export(model, path, format="onnx", validate=False, verbose=False)
            sessions[part] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return sessions


def milliseconds(session, batch):
    (value,) = session.get_inputs()
    images = np.random.default_rng(0).uniform(size=(batch, *value.shape[1:])).astype("float32")
    return measure.median_ms(lambda: session.run(None, {value.name: images}))


if __name__ == "__main__":
    main()
