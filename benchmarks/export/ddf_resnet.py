# SPDX-License-Identifier: Apache-2.0
"""Exports a DDF-ResNet and its baseline, validates the files, and measures the time of a call.

The files are a SavedModel and an ONNX file, both with standard ops; they run in stock TensorFlow and onnxruntime. The
weights are random, and no block is equal to its shortcut. `--model` exports trained networks instead.
"""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.command_line import new_parser
from benchmarks.export.runtimes import load_call
from examples.experiments.core.environment import cores, processor_name
from examples.experiments.core.options import positive_int
from keras_dynfilter import export, inspection, models

DEPTHS = (18, 50, 101, 152)
SUFFIXES = {"onnx": ".onnx", "saved_model": "_saved_model"}


def parse(arguments=None):
    parser = new_parser("benchmarks.export.ddf_resnet", __doc__)
    add = parser.add_argument
    add("--depth", type=int, choices=DEPTHS, default=50, help="depth of both networks")
    add("--model", type=pathlib.Path, nargs="+", default=[], metavar="FILE", help=".keras files to use instead")
    add("--size", type=positive_int, default=224, help="rows and columns of the images")
    add("--batch-size", type=positive_int, default=1, help="number of images in a call")
    add("--width", type=positive_int, default=64, help="channels of the first stage")
    add("--threads", type=int, default=0, help="threads of onnxruntime; 0: one per core")
    add("--formats", nargs="+", choices=SUFFIXES, default=list(SUFFIXES), help="only these formats")
    add("--out", type=pathlib.Path, default=pathlib.Path("outputs/ddf_export"), help="folder of the files")
    return parser.parse_args(arguments)


def networks(args):
    """Builds or loads the models. Returns them by name."""
    if args.model:
        return {path.stem: keras.models.load_model(path, compile=False) for path in args.model}
    keras.utils.set_random_seed(0)
    names = (f"ddf_resnet{args.depth}", f"ddf_resnet{args.depth}_baseline")
    shape = (args.size, args.size, 3)
    return {name: with_active_blocks(getattr(models, name)(shape, width=args.width)) for name in names}


def with_active_blocks(network):
    """Sets the scales that start at 0 to 0.5, so that no block equals its shortcut. Returns the network."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(tf.fill(layer.gamma.shape, 0.5))
    return network


def measure(name, network, args):
    """Exports a network. Returns its row: its size, and the report and the milliseconds of each file."""
    shape = (args.batch_size, args.size, args.size, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype("float32")
    row = {
        "network": name,
        "parameters": inspection.count_parameters(network),
        "flops": inspection.count_flops(network, shape[1:]),
        "shape": shape,
    }
    for format in args.formats:
        path = args.out / f"{name}{SUFFIXES[format]}"
        report = export.export(network, str(path), format=format, input_size=shape[1:3])
        call = load_call(format, path, images, args.threads)
        row[format] = {"ms": timing.median_ms(call, budget=5.0), "report": report.to_dict()}
    return row


def main(arguments=None):
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    device = f"{processor_name()}, {cores()} cores"
    rows = [{"device": device, **measure(name, network, args)} for name, network in networks(args).items()]
    path = args.out / "results.json"
    path.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\n{device}; {args.batch_size} x {args.size} x {args.size} x 3, milliseconds of a call")
    print(f"  {'':<26}{'parameters':>12}{'FLOPs':>10}" + "".join(f"{format:>14}" for format in args.formats))
    for row in rows:
        times = "".join(f"{row[format]['ms']:>14.2f}" for format in args.formats)
        print(f"  {row['network']:<26}{row['parameters']:>12,}{row['flops'] / 1e9:>9.3f}B{times}")
    if len(rows) == 2:
        ratios = "".join(f"{rows[0][format]['ms'] / rows[1][format]['ms']:>13.2f}x" for format in args.formats)
        print(f"  {'first / second':<48}{ratios}")
    print(f"\nFiles: {path}, and the exports next to it")


if __name__ == "__main__":
    main()
