# SPDX-License-Identifier: Apache-2.0
"""Gives the command line of the exporter damaged models, weights and arrays, and wrong arguments."""

import contextlib
import functools
import io
import json
import os
import pathlib
import random
import re
import shutil
import tempfile
import warnings
import zipfile
from typing import Any

import keras
import numpy as np

from keras_dynfilter import layers, models
from keras_dynfilter.export import cli, model_loading, networks
from keras_dynfilter.export.report import ExportError
from tests.fuzz import archives, edits
from tests.fuzz.failures import Failure

SCRATCH: Any = None
SIZES = ("8x8", "0x4", "axb", "1000000x1000000", "20000x20000", "64", "-1x5", "99999999999999999999x1")
OPTIONS = {
    "--format": ("saved_model", "onnx", "litert", "keras", ""),
    "--ops": ("portable", "native", "other"),
    "--opset": ("1", "18", "999", "x"),
    "--precision": ("float32", "float16", "int8", "int4"),
    "--input-size": SIZES,
    "--report": ("report.json", "missing/report.json", ".", "/proc/report.json"),
    "--model": ("dfn_steerable", "resnet", "unknown"),
    "--set": (
        "width=0.25",
        "width=1e9",
        "image_shape=(8,8,1)",
        "kernel_size=-3",
        "image_shape=((((",
        "x",
        "name=[]",
        "a=1",
    ),
    "--weights": ("missing.h5", "model.keras"),
    "--representative-data": ("data.npz", "model.keras", "missing.npz"),
    "--out": ("", ".", "/proc/x", "out", "model.keras", "missing/out"),
    "--unknown": ("1",),
    "--unsafe": (None,),
}


def setup() -> None:
    global SCRATCH
    warnings.simplefilter("ignore")
    SCRATCH = tempfile.TemporaryDirectory(prefix="export-")
    os.chdir(SCRATCH.name)
    _model_file(), _weights_file()


@functools.cache
def _model_file() -> bytes:
    image = keras.Input((None, None, 2), name="image")
    model = keras.Model(image, layers.DDF2D(kernel_size=3)(image))
    model.save("original.keras")
    return pathlib.Path("original.keras").read_bytes()


@functools.cache
def _weights_file() -> bytes:
    models.dfn_steerable(kernel_size=3, image_shape=(8, 8, 1)).save_weights("original.weights.h5")
    return pathlib.Path("original.weights.h5").read_bytes()


def draw(random: random.Random, repeated: random.Random, mode: str) -> dict:
    if mode == "models":
        if random.random() < 0.2:
            return {"weights": edits.draw(random)}
        value: dict = {"config": [_config_change(random) for _ in range(random.randrange(3))]}
        if not value["config"] or random.random() < 0.3:
            value["bytes"] = edits.draw(random)
        return value
    names = [random.choice([*OPTIONS]) for _ in range(random.randint(1, 3))]
    options = [[name, random.choice(OPTIONS[name])] for name in names]
    value = {"model": random.choice(("model.keras", "missing.keras", "folder", "")), "options": options}
    if any(name == "--representative-data" for name in names):
        value["members"] = archives.draw(random, ["image"])
        value["bytes"] = edits.draw(random) if random.random() < 0.4 else []
    return value


def _config_change(random: random.Random) -> list:
    replacement = random.choice(
        (None, -1, 0, 2, 1e9, 10**30, "", "tensorflow", [], {}, [[]], {"class_name": "Lambda", "config": {}}, "nested")
    )
    return [random.randrange(1000), random.choice(("replace", "replace", "delete")), replacement]


def run(value: dict) -> bool:
    for path in pathlib.Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    pathlib.Path("folder").mkdir()
    if value["mode"] == "models":
        return _load(value)
    pathlib.Path("model.keras").write_bytes(_model_file())
    if "members" in value:
        content = archives.write({"image": np.zeros((2, 8, 8, 2), np.float32)}, value["members"])
        pathlib.Path("data.npz").write_bytes(edits.apply(content, value.get("bytes", [])))
    words = [value["model"]] if value["model"] else []
    for name, argument in value["options"]:
        words += [name] if argument is None else [name, argument]
    return _run_command(words)


def _load(value: dict) -> bool:
    """Loads a damaged model or damaged weights. The command line prints these errors as they are."""
    try:
        if "weights" in value:
            path = pathlib.Path("model.weights.h5")
            path.write_bytes(edits.apply(_weights_file(), value["weights"]))
            networks.load_network("dfn_steerable", path, ["kernel_size=3", "image_shape=(8, 8, 1)"])
        else:
            path = pathlib.Path("model.keras")
            content = _changed_model(_model_file(), value["config"]) if value["config"] else _model_file()
            path.write_bytes(edits.apply(content, value.get("bytes", [])))
            model_loading.load_model(path)
    except (ExportError, ValueError) as error:
        if path.name not in str(error):
            raise Failure("unclear text", f"{type(error).__name__} does not name the file: {error}") from error
        return False
    return True


def _changed_model(content: bytes, changes: list) -> bytes:
    """Changes places of config.json in a .keras file."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                for place, kind, replacement in changes:
                    _change(config, place, kind, replacement)
                data = json.dumps(config).replace('"nested"', "[" * 10**5 + "]" * 10**5).encode()
            archive.writestr(zipfile.ZipInfo(name), data)
    return target.getvalue()


def _change(config: Any, place: int, kind: str, replacement: Any) -> None:
    places = []

    def visit(value: Any) -> None:
        keys = [*value] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            places.append((value, key))
            visit(value[key])

    visit(config)
    if not places:
        return
    container, key = places[place % len(places)]
    if kind == "delete":
        del container[key]
        return
    container[key] = replacement


def _run_command(words: list[str]) -> bool:
    """Runs the command. A sentence on standard error and the status 1 or 2 are the only refusals."""
    outputs, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(outputs), contextlib.redirect_stderr(errors):
        try:
            status = cli.main([*words, "--no-validate"])
        except SystemExit as stop:
            status = stop.code
    text = errors.getvalue()
    if status == 0:
        return True
    if status not in (1, 2) or "rror:" not in text or "Traceback" in text:
        raise Failure("unclear text", f"status {status}: {text[-1000:]}")
    if not re.search(r"rror: .{10}", text, re.DOTALL):
        raise Failure("unclear text", f"status {status}: {text[-1000:]}")
    return False
