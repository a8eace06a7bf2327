# SPDX-License-Identifier: Apache-2.0
"""What the command line exports: a `.keras` file, a SavedModel, or weights of a network of `keras_dynfilter.models`.

None of them may run code of its own, unless the caller trusts it.
"""

import ast
import inspect
import zipfile
import zlib

import keras
import tensorflow as tf

from keras_dynfilter.export import allowed_ops, formats
from keras_dynfilter.export.report import ExportError, first_line

SIGNATURE = "serving_default"
# What Keras says where it does not know a layer; the last is of Keras 2.
UNKNOWN_LAYER = ("Could not locate", "Unknown layer", "parent module", "'str' object is not callable")


def model_file(path, unsafe=False):
    """Loads a `.keras` file or a SavedModel folder as a model; its layers must be those of Keras or of this package.

    Args:
        path: A `pathlib.Path`.
        unsafe: Whether the file may run code of its own.

    Raises:
        ValueError: There is no such thing at `path`.
        ExportError: It cannot be loaded.
    """
    if (path / "saved_model.pb").is_file():
        return _saved_model(path, unsafe)
    if path.is_dir():
        raise ValueError(f"Expected a folder with saved_model.pb. Received: {path}")
    if path.suffix != ".keras" or not path.is_file():
        problem = "No such file" if path.suffix == ".keras" else "Expected a .keras file or a SavedModel folder"
        weights = " Weights need the name of their network: --model NAME --weights FILE" if path.suffix == ".h5" else ""
        raise ValueError(f"{problem}: {path}.{weights}")
    return _keras_file(path, unsafe)


def networks():
    """Functions of `keras_dynfilter.models` that make a network, by name: those whose networks are named as they."""
    from keras_dynfilter import models

    found = {}
    for name in models.__all__:
        parameters = inspect.signature(getattr(models, name)).parameters
        own = "name" in parameters and parameters["name"].default == name
        if own and next(iter(parameters.values())).default is not inspect.Parameter.empty:
            found[name] = getattr(models, name)
    return found


def network(name, weights, options=()):
    """Makes a network of `keras_dynfilter.models` and gives it trained weights.

    Args:
        name: Of the function that makes it.
        weights: A `pathlib.Path`: what `model.save_weights` wrote.
        options: Texts `NAME=VALUE`, arguments of that function.

    Raises:
        ValueError: There is no such network, option, or file.
        ExportError: The weights are those of another network.
    """
    known = networks()
    if name not in known:
        expected = f"Expected --model to be one of {', '.join(known)}"
        raise ValueError(f"{expected}. Received: {name}.{formats.hint(name, known)}")
    if not weights.is_file():
        raise ValueError(f"No such file: {weights}")
    given = dict(_option(name, known[name], text) for text in options)
    try:
        made = known[name](**given)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
    if not made.built:
        raise ValueError(f"Expected options that fix the inputs of {name}. Received: {given}")
    try:
        made.load_weights(weights)
    except Exception as error:  # h5py and Keras raise whatever they run into
        raise ExportError(
            f"{weights} does not hold weights of {name} as it was made here. Options that it was trained with, such as "
            f"--set width=0.25, have to be given again.\n{first_line(error)}"
        ) from error
    return made


def _option(network, make, text):
    key, separator, value = text.partition("=")
    parameters = inspect.signature(make).parameters
    names = [key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if not separator:
        raise ValueError(f"Expected --set NAME=VALUE. Received: {text}")
    if key not in names and len(names) == len(parameters):  # others hand further ones on
        expected = f"Expected --set with an argument of {network}: {', '.join(names)}"
        raise ValueError(f"{expected}. Received: {key}.{formats.hint(key, names)}")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def _keras_file(path, unsafe):
    if _damaged(path):
        raise ExportError(f"{path} is not a .keras file, or is damaged")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    except (OSError, TypeError, ValueError) as error:
        text = str(error)
        if "safe_mode" in text:
            hint = "It holds code of its own, such as a Lambda layer. --unsafe runs it: only for files you trust"
        elif any(sign in text for sign in UNKNOWN_LAYER):
            own = "Models with layers of your own are exported from Python, where their module is imported"
            hint = f"It holds a layer that is not known here. {own}"
        else:
            hint = "It cannot be loaded"
        raise ExportError(f"{path}: {hint}.\n{text}") from error


def _damaged(path):
    """Whether the archive cannot be read: what Keras says of such files misleads."""
    if not zipfile.is_zipfile(path):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" not in archive.namelist() or archive.testzip() is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return True


class _Served(keras.layers.Layer):
    """Calls a signature of a SavedModel on a dict of tensors."""

    def __init__(self, loaded, signature, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.loaded, self.signature = loaded, signature

    def call(self, inputs):
        return self.signature(**inputs)


def _saved_model(path, unsafe):
    """The signature `serving_default` of a SavedModel as a functional model."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ExportError(f"{path / 'saved_model.pb'} is damaged: {error}") from error
    _load_ops(path, content)
    reaching = allowed_ops.reaching_ops(content)
    if reaching and not unsafe:
        raise ExportError(
            f"{path}: It holds ops that reach files, processes or networks: {', '.join(reaching)}. --unsafe runs them: "
            "only for files you trust"
        )
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{path}: It cannot be loaded.\n{error}") from error
    if SIGNATURE not in loaded.signatures:
        found = ", ".join(loaded.signatures) or "none"
        raise ExportError(f"{path}: Expected a signature {SIGNATURE}. Received a SavedModel with these: {found}")
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


def _load_ops(path, content):
    """Loads the library of our ops where the SavedModel has any, so that TensorFlow knows them."""
    from keras_dynfilter.ops.backends import library as library_module

    graphs = [graph.graph_def for graph in content.meta_graphs]
    functions = [function for graph in graphs for function in graph.library.function]
    nodes = [node for part in graphs for node in part.node]
    nodes += [node for function in functions for node in function.node_def]
    if not any(node.op.startswith("KerasDynfilter>") for node in nodes):
        return
    library = library_module.load()
    if library.ops is None:
        raise ExportError(f"{path}: It holds compiled ops of keras_dynfilter, which are missing: {library.reason}")
