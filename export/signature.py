# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a Keras model by name, whatever structure it takes and returns."""

import dataclasses
import inspect
import re

import keras
import tensorflow as tf

from keras_dynfilter.export.report import ExportError


@dataclasses.dataclass(frozen=True)
class Signature:
    """How a model is called.

    Attributes:
        specs: `tf.TensorSpec` by name, in the order of the model.
        structure: What the model takes, with names in place of tensors.
        spread: Whether the items of `structure` are arguments of their own.
    """

    specs: dict
    structure: object
    spread: bool = False

    def call(self, model, tensors):
        """The outputs of `model` by name, for input tensors by name."""
        arguments = _map(self.structure, lambda name, _: tensors[name])
        if not self.spread:
            outputs = model(arguments, training=False)
        elif isinstance(arguments, dict):
            outputs = model(**arguments, training=False)
        else:
            outputs = model(*arguments, training=False)
        return _named_outputs(model, outputs, self.specs)

    def sample(self, values, argument):
        """Arrays by name from `values`, a structure like the model's inputs or a dict by name, of an `argument`."""
        if isinstance(values, dict) and set(values) == set(self.specs):
            return {name: _array(values[name], spec) for name, spec in self.specs.items()}
        found = {}
        names = {path: name for name, path in _leaves(self.structure)}
        for value, path in _leaves(values):
            if path not in names:
                expected = f"Expected samples of `{argument}` in the structure of the inputs, or by name"
                received = ", ".join(map(repr, values)) if isinstance(values, dict) else type(values).__name__
                raise ValueError(f"{expected}: {', '.join(self.specs)}. Received: {received}")
            found[names[path]] = _array(value, self.specs[names[path]])
        if set(found) != set(self.specs):
            missing = ", ".join(set(self.specs) - set(found))
            raise ValueError(f"Expected samples of `{argument}` to have every input. Received none for: {missing}")
        return found


def of(model, input_signature=None, input_size=None, identifiers=False):
    """The `Signature` of a built model.

    Args:
        model: A `keras.Model`.
        input_signature: `tf.TensorSpec`s in the structure that the model takes; needed for a subclassed model whose
            `call` takes several arguments, or whose unknown sizes the model does not record.
        input_size: `(height, width)` to fix where the model leaves them open, or None.
        identifiers: Whether names must be identifiers, as TensorFlow makes them: other characters become `_`, and what
            does not begin with a letter is preceded by `arg_`.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected `model` to be a keras.Model. Received: {type(model).__name__}")
    if not model.built:
        raise ValueError(f"Expected `model` to be built: call {model.name!r} once, or its build method")
    arguments = _required_arguments(model)
    spread = len(arguments) > 1
    if input_signature is not None:
        structure = input_signature
    elif getattr(model, "inputs", None):
        structure, spread = _symbolic_inputs(model), False
    else:
        structure = _recorded_inputs(model, spread)

    specs = {}
    first = arguments[0] if arguments and not spread else "inputs"
    automatic = {id(layer.output): layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)}

    def name(leaf, path):
        key = path[-1] if path and isinstance(path[-1], str) else automatic.get(id(leaf)) or getattr(leaf, "name", None)
        if spread and not key:
            key = arguments[path[0]]
        if not key or key.startswith("keras_tensor"):  # Keras's own counter, another one in every process
            key = first if not path else f"{first}_{'_'.join(map(str, path))}"
        key = _unique(_identifier(key) if identifiers else key, specs)
        specs[key] = _spec(leaf, key, input_size)
        return key

    structure = _map(structure, name)
    if input_size is not None and not any(_fits(spec, input_size) for spec in specs.values()):
        shapes = ", ".join(f"{key} {spec.shape}" for key, spec in specs.items())
        raise ValueError(f"Expected `input_size` to suit the model's inputs, {shapes}. Received: {input_size}")
    return Signature(specs, structure, spread)


def _identifier(name):
    """The name that TensorFlow gives an argument of a signature."""
    name = re.sub(r"\W", "_", name)
    return name if name[0].isalpha() else f"arg_{name}"


def axis_names(shape):
    """A name for every axis of an input or output: `batch`, `height`, `width`, ... or `axis_3`."""
    shape = list(shape)
    rank = len(shape)
    names = ["batch", *(f"axis_{axis}" for axis in range(1, rank))]
    unknown = [axis for axis in range(1, rank) if shape[axis] is None]
    if rank == 3:
        names[1:] = ["length", "channels"]
    elif rank == 4:
        open_ends = shape[1] is None and shape[3] is None
        first = keras.backend.image_data_format() == "channels_first" if open_ends else shape[3] is None
        names[1:] = ["channels", "height", "width"] if first else ["height", "width", "channels"]
    elif rank == 5 and unknown != [1, 2]:
        names[1:] = ["frames", "height", "width", "channels"]
    elif rank >= 5:
        names[1:3] = ["height", "width"]
    return names


def _symbolic_inputs(model):
    """The symbolic inputs of a functional or sequential model, structured as it takes them."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input


def _recorded_inputs(model, spread):
    recorded = None if spread else (model.get_build_config() or {}).get("input_shape")
    if recorded is None:
        raise ValueError(
            f"Expected `input_signature`, tf.TensorSpecs in the structure that {type(model).__name__}.call takes: "
            "its inputs cannot be read off the model"
        )
    dtype = model.variable_dtype or keras.backend.floatx()
    return _map(recorded, lambda shape, _: tf.TensorSpec([None, *shape[1:]], dtype))


def _required_arguments(model):
    """Names of the arguments of `model.call` that must be given."""
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        p.name for p in parameters if p.kind in kinds and p.default is p.empty and p.name not in ("training", "mask")
    ]


def _spec(leaf, name, input_size):
    if getattr(leaf, "sparse", False) or getattr(leaf, "ragged", False):
        raise ExportError(f"Expected dense inputs. Received: {name} is sparse or ragged")
    shape = tf.TensorShape(leaf.shape)
    if shape.rank is None or shape.rank == 0:
        raise ExportError(f"Expected inputs with a batch axis and a known rank. Received: {name} of shape {shape}")
    shape = shape.as_list()
    if input_size is not None:
        for axis, axis_name in enumerate(axis_names(shape)):
            if shape[axis] is None and axis_name in ("height", "width"):
                shape[axis] = input_size[axis_name == "width"]
    return tf.TensorSpec(shape, leaf.dtype, name)


def _fits(spec, input_size):
    sizes = dict(zip(axis_names(spec.shape), spec.shape))
    return (sizes.get("height"), sizes.get("width")) == tuple(input_size)


def _named_outputs(model, outputs, inputs):
    """Outputs by name; one that has the name of an input, which ONNX forbids, gets another."""
    names = list(getattr(model, "output_names", None) or ())
    leaves = _leaves(outputs)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    named = {}
    for index, (value, path) in enumerate(leaves):
        if path and isinstance(path[-1], str):
            name = path[-1]
        else:
            name = names[index] if len(names) == len(leaves) else f"output_{index}"
        named[_unique(name, {*named, *inputs})] = value
    return named


def _unique(name, taken):
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _array(value, spec):
    value = tf.convert_to_tensor(value, spec.dtype)
    if not spec.shape.is_compatible_with(value.shape):
        raise ValueError(f"Expected samples of {spec.name} to have shape {spec.shape}. Received: {value.shape}")
    return value.numpy()


def _map(structure, function, path=()):
    """Applies `function(leaf, path)` to the leaves of nested dicts, lists and tuples; tuples of sizes are leaves."""
    if isinstance(structure, dict):
        return {key: _map(value, function, (*path, key)) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)) and not _is_shape(structure):
        items = [_map(value, function, (*path, index)) for index, value in enumerate(structure)]
        return tuple(items) if isinstance(structure, tuple) else items
    return function(structure, path)


def _leaves(structure):
    """`(leaf, path)` of every leaf, in order."""
    found = []
    _map(structure, lambda leaf, path: found.append((leaf, path)))
    return found


def _is_shape(value):
    return bool(value) and all(size is None or isinstance(size, int) for size in value)
