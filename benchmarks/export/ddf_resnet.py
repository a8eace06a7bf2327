# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.export.ddf_resnet`: exports a DDF-ResNet and its ResNet, validates the files, and times them.

SavedModel and ONNX with standard ops, as `keras_dynfilter.export` writes them: what is timed is what a stock TensorFlow
or onnxruntime makes of them, one call after the other, in milliseconds. Weights are random, with blocks that are more
than their shortcuts; `--model` takes trained networks in their place.
"""

import argparse
import json
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.export import runtimes
from keras_dynfilter import export, inspection, models

DEPTHS = (18, 50, 101, 152)
SUFFIXES = {"onnx": ".onnx", "saved_model": "_saved_model"}


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export.ddf_resnet", description=__doc__.split("\n\n")[0]
    )
    add = parser.add_argument
    add("--depth", type=int, choices=DEPTHS, default=50, help="of both networks")
    add("--model", type=pathlib.Path, nargs="+", default=[], metavar="FILE", help=".keras files instead")
    add("--size", type=int, default=224, help="rows and columns of the images")
    add("--batch-size", type=int, default=1)
    add("--width", type=int, default=64, help="channels of the first stage")
    add("--threads", type=int, default=0, help="of onnxruntime; 0: as many as there are cores")
    add("--formats", nargs="+", choices=SUFFIXES, default=list(SUFFIXES))
    add("--out", type=pathlib.Path, default=pathlib.Path("outputs/ddf_export"), help="folder of the files")
    args = parser.parse_args(arguments)
    for name in ("size", "batch_size", "width"):
        if getattr(args, name) < 1:
            parser.error(f"Expected --{name.replace('_', '-')} to be above zero. Received: {getattr(args, name)}")
    return args


def networks(args):
    """Models by name."""
    if args.model:
        return {path.stem: keras.models.load_model(path, compile=False) for path in args.model}
    keras.utils.set_random_seed(0)
    names = (f"ddf_resnet{args.depth}", f"ddf_resnet{args.depth}_baseline")
    shape = (args.size, args.size, 3)
    return {name: awake(getattr(models, name)(shape, width=args.width)) for name in names}


def awake(network):
    """The network, whose blocks start as their shortcuts, with blocks that add to them."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(tf.fill(layer.gamma.shape, 0.5))
    return network


def measured(name, network, args):
    """What is to be known of a network: its size, and of each file errors and milliseconds."""
    shape = (args.batch_size, args.size, args.size, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype("float32")
    row = {
        "network": name,
        "parameters": inspection.count_parameters(network),
        "flops": inspection.count_flops(network, shape[1:]),
        "shape": shape,
    }
    for kind in args.formats:
        path = args.out / f"{name}{SUFFIXES[kind]}"
        report = export.export(network, str(path), format=kind, input_size=shape[1:3])
        call = runtimes.call_of(kind, path, images, args.threads)
        row[kind] = {"ms": timing.median_ms(call, budget=5.0), "report": report.to_dict()}
    return row


def main(arguments=None):
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    device = f"{timing.cpu()}, {len(os.sched_getaffinity(0))} cores"
    rows = [{"device": device, **measured(name, network, args)} for name, network in networks(args).items()]
    path = args.out / "results.json"
    path.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\n{device}; {args.batch_size} x {args.size} x {args.size} x 3, milliseconds of a call")
    print(f"  {'':<26}{'parameters':>12}{'FLOPs':>10}" + "".join(f"{kind:>14}" for kind in args.formats))
    for row in rows:
        times = "".join(f"{row[kind]['ms']:>14.2f}" for kind in args.formats)
        print(f"  {row['network']:<26}{row['parameters']:>12,}{row['flops'] / 1e9:>9.3f}B{times}")
    if len(rows) == 2:
        ratios = "".join(f"{rows[0][kind]['ms'] / rows[1][kind]['ms']:>13.2f}x" for kind in args.formats)
        print(f"  {'first / second':<48}{ratios}")
    print(f"\nFiles: {path}, and the exports beside it")


if __name__ == "__main__":
    main()
