# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.filter_repository`: the filter repository networks in onnxruntime, beside their static twins.

Each network and its twin are exported with standard ops, untrained. A network does what its twin does, and on top of
that the autoencoder with the features, and the dense layers that make coefficients of these. Each is timed as a file of
its own; what is left is the price of mixing. The network's file is validated, and so is a SavedModel of it.
"""

import argparse
import json
import os
import pathlib
import tempfile

import keras
import numpy as np

from benchmarks import timing
from keras_dynfilter import export, models
from keras_dynfilter.layers import RepositoryConv2D

NETWORKS = {
    "mnist": (models.repository_mnist, models.repository_mnist_baseline),
    "mtfl": (models.repository_mtfl, models.repository_mtfl_baseline),
    "cifar10": (models.repository_cifar10, models.repository_cifar10_baseline),
}
MOST_OF_BOTH = 1.1  # the time of both is aimed at; a tenth is how far timings scatter


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export.filter_repository", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--threads", type=int, help="of onnxruntime; by default TF_NUM_INTRAOP_THREADS or all cores")
    parser.add_argument("--json", type=pathlib.Path, default="outputs/repository_onnx.jsonl", help="JSON lines go here")
    args = parser.parse_args()
    if min(args.batch_size) < 1:
        parser.error(f"Expected --batch-size to be above zero. Received: {min(args.batch_size)}")
    if args.threads is not None and args.threads < 1:
        parser.error(f"Expected --threads to be above zero. Received: {args.threads}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    threads = args.threads or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))

    rows = []
    print(f"{timing.cpu()}, {threads} threads; milliseconds of a call\n")
    heads = f"{'network / both':>16}{'coefficients':>14}{'network / all':>15}"
    print(f"{'':<10}{'batch':>6}{'network':>13}{'twin':>9}{'autoencoder':>13}{heads}")
    for name in args.only:
        sessions, known = exported(name, threads)
        for batch in args.batch_size:
            ms = timing.in_turns({part: call(session, batch) for part, session in sessions.items()})
            both = ms["twin"] + ms["generator"]
            of_both, of_all = ms["network"] / both, ms["network"] / (both + ms["coefficients"])
            rows.append({"network": name, "batch": batch, "ms": ms, "of_both": of_both, "of_all": of_all, **known})
            numbers = f"{ms['network']:>13.2f}{ms['twin']:>9.2f}{ms['generator']:>13.2f}{of_both:>16.2f}"
            numbers += f"{ms['coefficients']:>14.2f}{of_all:>15.2f}"
            print(f"{name:<10}{batch:>6}{numbers}", flush=True)
    print("", *verdicts(rows), *files(rows), sep="\n")
    args.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"\nJSON lines: {args.json}")


def exported(name, threads):
    """Exports a network, and what it is compared with.

    Returns:
        onnxruntime sessions of the network, of its twin, of the autoencoder with the features, and of the coefficients,
        by name; and what is to be known of the files, and of the machine, as for JSON.
    """
    import onnxruntime

    make, make_twin = NETWORKS[name]
    network = make()
    parts = {"network": network, "twin": make_twin(), "generator": network.get_layer("generator")}
    parts["coefficients"] = coefficients(network)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions, reports = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for part, model in parts.items():
            path = pathlib.Path(folder) / f"{part}.onnx"
            reports[part] = export.export(model, path, format="onnx", validate=part == "network", verbose=False)
            sessions[part] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        saved = export.export(network, pathlib.Path(folder) / "network", format="saved_model", verbose=False)
    found = {
        kind: {"megabytes": sum(report.bytes.values()) / 1e6, "passed": report.passed}
        for kind, report in (("onnx", reports["network"]), ("saved_model", saved))
    }
    versions = {**reports["network"].versions, "onnxruntime": onnxruntime.__version__}
    return sessions, {**found, "cpu": timing.cpu(), "threads": threads, "versions": versions}


def coefficients(network):
    """A model of the features to the coefficients of all generated convolutions."""
    inputs, outputs = [], []
    for layer in network.get_layer("prediction").layers:
        if isinstance(layer, RepositoryConv2D):
            # Each in a model of its own, as all of these dense layers have one name.
            dense = keras.Sequential([keras.Input(layer.generator.kernel.shape[:1]), layer.generator], name=layer.name)
            inputs.append(keras.Input(dense.input_shape[1:], name=f"features_of_{layer.name}"))
            outputs.append(dense(inputs[-1]))
    return keras.Model(inputs, outputs)


def call(session, batch):
    """A function of nothing that runs a file."""
    rng = np.random.default_rng(0)
    values = {
        value.name: rng.uniform(size=(batch, *value.shape[1:])).astype("float32") for value in session.get_inputs()
    }
    return lambda: session.run(None, values)


def verdicts(rows):
    """A line for each network and batch: whether it is as fast as its twin and the small networks together."""
    for row in rows:
        met = timing.verdict(row["of_both"] <= MOST_OF_BOTH)
        text = f"{row['network']}, batch {row['batch']}: {row['of_both']:.2f} of twin and autoencoder with features"
        yield f"{text}, at most {MOST_OF_BOTH}: {met}"


def files(rows):
    """A line for each network: its files. One that fails the validation ends the benchmark."""
    for row in {row["network"]: row for row in rows}.values():
        sizes = (f"{kind} {row[kind]['megabytes']:.2f} MB" for kind in ("onnx", "saved_model"))
        yield f"{row['network']}, validated: {', '.join(sizes)}"


if __name__ == "__main__":
    main()
