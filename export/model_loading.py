# SPDX-License-Identifier: Apache-2.0
"""Loads a model for the command line: a `.keras` file or a SavedModel.

A file can neither run code of its own nor use other files, unless the caller states that it is trusted.
"""

import json
import pathlib
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from keras_dynfilter.export import allowed_ops
from keras_dynfilter.export.report import ExportError, first_line
from keras_dynfilter.ops.backends import library
from keras_dynfilter.ops.backends.raw_ops import PREFIX
from keras_dynfilter.untrusted import archives, hdf5, memory, variables

SIGNATURE = "serving_default"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # members of a .keras file
LARGEST_CONFIG = 2**26  # bytes; the configuration of a network of a thousand layers has about a million
LARGEST_GRAPH = 2**31 - 1  # bytes: the limit of a protocol buffer
# Parts of the errors that Keras raises for an unknown layer. The last one is an error of Keras 2.
UNKNOWN_LAYER = ("Could not locate", "Unknown layer", "parent module", "'str' object is not callable")


def load_model(path: pathlib.Path, unsafe: bool = False) -> keras.Model:
    """Loads a `.keras` file or the folder of a SavedModel.

    The layers of a `.keras` file must be layers of Keras or of this package, or registered in this process.

    Args:
        path: The file or folder.
        unsafe: Whether the file is trusted: it may run its own code and use files.

    Raises:
        ValueError: `path` is neither a `.keras` file nor the folder of a SavedModel.
        ExportError: The model cannot be loaded.
    """
    if (path / "saved_model.pb").is_file():
        return _load_saved_model(path, unsafe)
    if path.is_dir():
        raise ValueError(f"Expected a folder with saved_model.pb. Received: {path}")
    if path.suffix != ".keras" or not path.is_file():
        missing = path.suffix == ".keras" and not path.exists()
        problem = "No such file" if missing else "Expected a .keras file or a SavedModel folder"
        weights = " Weights need the name of their network: --model NAME --weights FILE" if path.suffix == ".h5" else ""
        raise ValueError(f"{problem}: {path}.{weights}")
    return _load_keras_file(path, unsafe)


def _load_keras_file(path: pathlib.Path, unsafe: bool) -> keras.Model:
    _check_keras_file(path)
    try:
        variables.check(lambda: _without_weights(path, unsafe), f"the variables of {path}")
        return keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    except RecursionError as error:
        raise ExportError(f"{path}: It cannot be loaded: its configuration is nested too deeply") from error
    except Exception as error:  # Keras and layers raise exceptions of many classes
        text = str(error) or type(error).__name__
        if "safe_mode" in text:
            problem = "It contains code, such as a Lambda layer. --unsafe runs the code: use it only for trusted files"
        elif any(part in text for part in UNKNOWN_LAYER):
            problem = (
                "It contains a layer that is not known here. Models with layers of your own are exported from Python, "
                "after an import of the module that defines them"
            )
        else:
            problem = "It cannot be loaded"
        raise ExportError(f"{path}: {problem}.\n{text}") from error


def _without_weights(path: pathlib.Path, unsafe: bool) -> keras.Model:
    with archives.opened_zip(path) as archive:
        config = json.loads(archive.read(CONFIG))
    return keras.saving.deserialize_keras_object({**config, "compile_config": None}, safe_mode=not unsafe)


def _check_keras_file(path: pathlib.Path) -> None:
    """Checks the members of the archive. Keras would raise misleading errors about a file that is damaged.

    Raises:
        ExportError: A member cannot be read, is too large, or is kept in another file.
        OSError: The file cannot be opened.
    """
    open(path, "rb").close()
    try:
        with archives.opened_zip(path) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            if CONFIG not in sizes:
                raise ValueError(f"no {CONFIG}")
            if sizes[CONFIG] > LARGEST_CONFIG:
                expected = f"Expected {CONFIG} to have at most {memory.in_words(LARGEST_CONFIG)}"
                raise ValueError(f"{expected}. Received: {memory.in_words(sizes[CONFIG])}")
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            if WEIGHTS in sizes:
                with archive.open(WEIGHTS) as file:
                    hdf5.check(file, f"{WEIGHTS} in {path}")
    except Exception as error:  # zipfile, zlib and h5py raise exceptions of many classes
        raise ExportError(f"{path} is not a .keras file, or is damaged: {first_line(error)}") from error


class _Served(keras.layers.Layer):
    """Calls a signature of a SavedModel on a dict of tensors."""

    def __init__(self, loaded: Any, signature: Any, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.loaded, self.signature = loaded, signature

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.signature(**inputs)


def _load_saved_model(path: pathlib.Path, unsafe: bool) -> keras.Model:
    """Loads the signature `serving_default` of a SavedModel as a functional model."""
    for entry in path.rglob("*"):
        if not entry.is_dir():
            archives.check_regular(entry)
    graph = path / "saved_model.pb"
    if graph.stat().st_size > LARGEST_GRAPH:
        size = memory.in_words(graph.stat().st_size)
        raise ExportError(f"Expected {graph} to have at most {memory.in_words(LARGEST_GRAPH)}. Received: {size}")
    try:
        content = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    except DecodeError as error:
        raise ExportError(f"{graph} is damaged: {error}") from error
    refused = allowed_ops.refused_ops(content)
    if refused and not unsafe:
        raise ExportError(
            f"{path}: It contains ops that the exporter does not allow, since they may reach files, processes or "
            f"networks: {', '.join(refused)}. --unsafe loads it nevertheless: use it only for trusted files"
        )
    _load_compiled_ops(path, content)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises exceptions of many classes for damaged files
        raise ExportError(f"{path}: It cannot be loaded.\n{error or type(error).__name__}") from error
    if SIGNATURE not in loaded.signatures:
        names = ", ".join(loaded.signatures) or "none"
        raise ExportError(f"{path}: Expected a signature {SIGNATURE}. Received a SavedModel with these: {names}")
    signature = loaded.signatures[SIGNATURE]
    specs = signature.structured_input_signature[1]
    for name, spec in specs.items():
        if spec.shape.rank is None or spec.shape.rank == 0:
            raise ExportError(
                f"{path}: Expected inputs with a batch axis and a known rank. Received: {name} of shape {spec.shape}"
            )
    try:
        inputs = {
            name: keras.Input(spec.shape[1:], spec.shape[0], dtype=spec.dtype, name=name)
            for name, spec in specs.items()
        }
        return keras.Model(inputs, _Served(loaded, signature, name="signature")(inputs))
    except Exception as error:  # such as a signature without inputs
        raise ExportError(f"{path}: Its signature cannot become a Keras model: {first_line(error)}") from error


def _load_compiled_ops(path: pathlib.Path, content: Any) -> None:
    """Loads the library of compiled ops if the SavedModel uses one, because TensorFlow loads only registered ops."""
    graphs = [meta_graph.graph_def for meta_graph in content.meta_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    if any(node.op.startswith(PREFIX) for node in nodes):
        loaded = library.load()
        if loaded.ops is None:
            raise ExportError(
                f"{path}: It contains compiled ops of keras_dynfilter, which are not available: {loaded.reason}"
            )
