# SPDX-License-Identifier: Apache-2.0
"""Measures the time of the filter repository networks and of their baselines in onnxruntime.

Each network and its baseline are exported with standard ops, untrained. A network computes everything that its baseline
computes, and also the generator (the autoencoder and the features) and the coefficients (dense layers of the features).
The baseline, the generator and the coefficients are also measured as separate files. The column `network / both` is the
time of the network relative to baseline and generator together; `network / all` is relative to all three parts, so that
the rest is the mixing. The ONNX file and a SavedModel of each network are validated.
"""

import pathlib
import tempfile

import keras
import numpy as np

from benchmarks import timing
from benchmarks.command_line import add_json, json_lines, new_parser
from benchmarks.export.runtimes import onnx_session, threads_from_environment
from benchmarks.targets import Target, print_targets
from examples.experiments.core.environment import processor_name
from examples.experiments.core.options import positive_int
from keras_dynfilter import export, models
from keras_dynfilter.layers import RepositoryConv2D

NETWORKS = {
    "mnist": (models.repository_mnist, models.repository_mnist_baseline),
    "mtfl": (models.repository_mtfl, models.repository_mtfl_baseline),
    "cifar10": (models.repository_cifar10, models.repository_cifar10_baseline),
}
MAX_RATIO = 1.1  # time relative to baseline and generator together; 1 is the aim, but timings vary by a tenth


def parse(arguments=None):
    parser = new_parser("benchmarks.export.filter_repository", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="only these networks")
    add("--batch-size", type=positive_int, nargs="+", default=[1, 128], help="numbers of images in a call")
    add("--threads", type=positive_int, help="threads of onnxruntime (default: TF_NUM_INTRAOP_THREADS, or all cores)")
    add_json(parser, "outputs/repository_onnx.jsonl")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    threads = args.threads or threads_from_environment()
    print(f"{processor_name()}, {threads} threads; milliseconds of a call\n")
    heads = f"{'network / both':>16}{'coefficients':>14}{'network / all':>15}"
    print(f"{'':<10}{'batch':>6}{'network':>13}{'baseline':>10}{'generator':>13}{heads}")
    rows = []
    with json_lines(args.json) as write:
        for name in args.only:
            sessions, facts = export_parts(name, threads)
            for batch in args.batch_size:
                ms = timing.in_turns({part: make_call(session, batch) for part, session in sessions.items()})
                both = ms["baseline"] + ms["generator"]
                of_both, of_all = ms["network"] / both, ms["network"] / (both + ms["coefficients"])
                rows.append({"network": name, "batch": batch, "ms": ms, "of_both": of_both, "of_all": of_all, **facts})
                write(rows[-1])
                times = f"{ms['network']:>13.2f}{ms['baseline']:>10.2f}{ms['generator']:>13.2f}"
                ratios = f"{of_both:>16.2f}{ms['coefficients']:>14.2f}{of_all:>15.2f}"
                print(f"{name:<10}{batch:>6}{times}{ratios}", flush=True)
        print_targets(report_targets(rows))
        print("", *report_files(rows), sep="\n")


def export_parts(name, threads):
    """Exports a network, its baseline and its parts.

    Returns:
        onnxruntime sessions by name: `"network"`, `"baseline"`, `"generator"` (the autoencoder and the features) and
        `"coefficients"`; and facts about the files and the machine for the row.
    """
    import onnxruntime

    make, make_baseline = NETWORKS[name]
    network = make()
    parts = {"network": network, "baseline": make_baseline(), "generator": network.get_layer("generator")}
    parts["coefficients"] = coefficients(network)
    sessions, reports = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for part, model in parts.items():
            path = pathlib.Path(folder) / f"{part}.onnx"
            reports[part] = export.export(model, path, format="onnx", validate=part == "network", verbose=False)
            sessions[part] = onnx_session(path, threads)
        saved = export.export(network, pathlib.Path(folder) / "network", format="saved_model", verbose=False)
    files = {
        format: {"megabytes": sum(report.bytes.values()) / 1e6, "passed": report.passed}
        for format, report in (("onnx", reports["network"]), ("saved_model", saved))
    }
    versions = {**reports["network"].versions, "onnxruntime": onnxruntime.__version__}
    return sessions, {**files, "cpu": processor_name(), "threads": threads, "versions": versions}


def coefficients(network):
    """Returns a model that maps the features to the coefficients of all generated convolutions."""
    inputs, outputs = [], []
    for layer in network.get_layer("prediction").layers:
        if isinstance(layer, RepositoryConv2D):
            # Each dense layer is put into a nested model, because all of these layers have the same name.
            dense = keras.Sequential([keras.Input(layer.generator.kernel.shape[:1]), layer.generator], name=layer.name)
            inputs.append(keras.Input(dense.input_shape[1:], name=f"features_of_{layer.name}"))
            outputs.append(dense(inputs[-1]))
    return keras.Model(inputs, outputs)


def make_call(session, batch):
    """Returns a function without arguments that runs a file on random inputs."""
    rng = np.random.default_rng(0)
    values = {
        value.name: rng.uniform(size=(batch, *value.shape[1:])).astype("float32") for value in session.get_inputs()
    }
    return lambda: session.run(None, values)


def report_targets(rows):
    """Yields a line for each network and batch size: the time relative to baseline and generator together."""
    for row in rows:
        quantity = f"{row['network']}, batch {row['batch']}: network / baseline and generator"
        yield Target(quantity, at_most=MAX_RATIO).report(row["of_both"])


def report_files(rows):
    """Yields a line for each network: the sizes of its files. If a validation failed, `export` has raised an error."""
    for row in {row["network"]: row for row in rows}.values():
        sizes = (f"{format} {row[format]['megabytes']:.2f} MB" for format in ("onnx", "saved_model"))
        yield f"{row['network']}, validated: {', '.join(sizes)}"


if __name__ == "__main__":
    main()
