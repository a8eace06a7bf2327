# SPDX-License-Identifier: Apache-2.0
"""Loads a model for the command line: a `.keras` file, a SavedModel, or weights of a network of this package.

A file can neither run code of its own nor use other files, unless the caller states that it is trusted.
"""

import ast
import inspect
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from keras_dynfilter import models
from keras_dynfilter.export import allowed_ops, formats
from keras_dynfilter.export.report import ExportError, first_line
from keras_dynfilter.ops.backends import library
from keras_dynfilter.ops.backends.raw_ops import PREFIX

SIGNATURE = "serving_default"
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
        problem = "No such file" if path.suffix == ".keras" else "Expected a .keras file or a SavedModel folder"
        weights = " Weights need the name of their network: --model NAME --weights FILE" if path.suffix == ".h5" else ""
        raise ValueError(f"{problem}: {path}.{weights}")
    return _load_keras_file(path, unsafe)


def networks() -> dict[str, Callable[..., keras.Model]]:
    """Returns the functions of `keras_dynfilter.models` that build a complete network, by name.

    The default of their `name` argument is the name of the function, and their first argument has a default.
    """
    functions = {}
    for name in models.__all__:
        parameters = inspect.signature(getattr(models, name)).parameters
        has_own_name = "name" in parameters and parameters["name"].default == name
        if has_own_name and next(iter(parameters.values())).default is not inspect.Parameter.empty:
            functions[name] = getattr(models, name)
    return functions


def load_network(name: str, weights: pathlib.Path, options: Iterable[str] = ()) -> keras.Model:
    """Builds a network of `keras_dynfilter.models` and loads trained weights into it.

    Args:
        name: Name of the function that builds the network.
        weights: A file that `model.save_weights` wrote.
        options: Arguments of the function, as texts `NAME=VALUE`.

    Raises:
        ValueError: There is no such network, option, or file.
        ExportError: The file does not hold weights of this network with these options.
    """
    functions = networks()
    if name not in functions:
        expected = f"Expected --model to be one of {', '.join(functions)}"
        raise ValueError(f"{expected}. Received: {name}.{formats.hint(name, functions)}")
    if not weights.is_file():
        raise ValueError(f"No such file: {weights}")
    arguments = dict(_option(name, functions[name], text) for text in options)
    try:
        model = functions[name](**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
    if not model.built:
        raise ValueError(f"Expected options that fix the inputs of {name}. Received: {arguments}")
    try:
        model.load_weights(weights)
    except Exception as error:  # h5py and Keras raise exceptions of many classes
        raise ExportError(
            f"{weights} does not hold weights of {name} with these options. If the network was trained with other "
            f"options, repeat them, as in --set width=0.25.\n{first_line(error)}"
        ) from error
    return model


def _option(network: str, function: Callable[..., keras.Model], text: str) -> tuple[str, Any]:
    """Parses `NAME=VALUE`, an argument of the function that builds a network."""
    key, separator, value = text.partition("=")
    parameters = inspect.signature(function).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if not separator:
        raise ValueError(f"Expected --set NAME=VALUE. Received: {text}")
    has_kwargs = len(names) < len(parameters)
    if key not in names and not has_kwargs:
        expected = f"Expected --set with an argument of {network}: {', '.join(names)}"
        raise ValueError(f"{expected}. Received: {key}.{formats.hint(key, names)}")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def _load_keras_file(path: pathlib.Path, unsafe: bool) -> keras.Model:
    if _is_damaged(path):
        raise ExportError(f"{path} is not a .keras file, or is damaged")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    except (OSError, TypeError, ValueError) as error:
        text = str(error)
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


def _is_damaged(path: pathlib.Path) -> bool:
    """Returns whether the archive cannot be read. Keras would raise misleading errors about such a file."""
    if not zipfile.is_zipfile(path):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" not in archive.namelist() or archive.testzip() is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return True


class _Served(keras.layers.Layer):
    """Calls a signature of a SavedModel on a dict of tensors."""

    def __init__(self, loaded: Any, signature: Any, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.loaded, self.signature = loaded, signature

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.signature(**inputs)


def _load_saved_model(path: pathlib.Path, unsafe: bool) -> keras.Model:
    """Loads the signature `serving_default` of a SavedModel as a functional model."""
    try:
        content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ExportError(f"{path / 'saved_model.pb'} is damaged: {error}") from error
    refused = allowed_ops.refused_ops(content)
    if refused and not unsafe:
        raise ExportError(
            f"{path}: It contains ops that the exporter does not allow, since they may reach files, processes or "
            f"networks: {', '.join(refused)}. --unsafe loads it nevertheless: use it only for trusted files"
        )
    _load_compiled_ops(path, content)
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{path}: It cannot be loaded.\n{error}") from error
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
    inputs = {
        name: keras.Input(spec.shape[1:], spec.shape[0], dtype=spec.dtype, name=name) for name, spec in specs.items()
    }
    return keras.Model(inputs, _Served(loaded, signature, name="signature")(inputs))


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
