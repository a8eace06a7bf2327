# SPDX-License-Identifier: Apache-2.0
"""Names the inputs and outputs of a Keras model. They may be tensors, or nested lists, tuples and dicts of tensors."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.export import dtypes
from keras_dynfilter.export.report import ExportError

KeyPath = tuple[str | int, ...]  # keys and indices that lead to a leaf of a nested structure


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a model and their structure.

    Attributes:
        specs: `tf.TensorSpec` by input name, in the order of the model.
        structure: The structure that the model takes, with input names in place of tensors.
        several_arguments: Whether each item of `structure` is an argument of `model.call`.
    """

    specs: dict[str, tf.TensorSpec]
    structure: Any
    several_arguments: bool = False

    def call(self, model: keras.Model, tensors: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Calls `model` in inference mode on tensors by input name. Returns its outputs by name."""
        arguments = _map(self.structure, lambda name, _: tensors[name])
        if not self.several_arguments:
            outputs = model(arguments, training=False)
        elif isinstance(arguments, dict):
            outputs = model(**arguments, training=False)
        else:
            outputs = model(*arguments, training=False)
        return _named_outputs(model, outputs, self.specs)

    def arrays_by_name(self, sample: Any, argument: str) -> dict[str, np.ndarray]:
        """Returns a sample as arrays by input name.

        Args:
            sample: A dict by input name, or a value with the structure that the model takes.
            argument: Name of the argument with the sample, for error messages.

        Raises:
            ValueError: The sample has another structure or dtype, lacks an input, or has a wrong shape.
        """
        if isinstance(sample, dict) and set(sample) == set(self.specs):
            return {name: _array(sample[name], spec) for name, spec in self.specs.items()}
        arrays = {}
        names = {path: name for name, path in _leaves(self.structure)}
        for value, path in _leaves(sample):
            if path not in names:
                expected = f"Expected samples of `{argument}` in the structure of the inputs, or by name"
                received = ", ".join(map(repr, sample)) if isinstance(sample, dict) else type(sample).__name__
                raise ValueError(f"{expected}: {', '.join(self.specs)}. Received: {received}")
            arrays[names[path]] = _array(value, self.specs[names[path]])
        if set(arrays) != set(self.specs):
            missing = ", ".join(set(self.specs) - set(arrays))
            raise ValueError(f"Expected samples of `{argument}` to have every input. Received none for: {missing}")
        return arrays


def model_signature(
    model: keras.Model,
    input_signature: Any = None,
    input_size: tuple[int, int] | None = None,
    identifiers: bool = False,
) -> Signature:
    """Returns the `Signature` of a built model.

    Args:
        model: A `keras.Model`.
        input_signature: `tf.TensorSpec`s in the structure that the model takes. A subclassed model needs them if its
            `call` takes several arguments, or to leave sizes other than the batch size open.
        input_size: `(height, width)` of the images, to fix sizes that the model leaves open; or None.
        identifiers: Whether to change input names to identifiers, as TensorFlow does: other characters become `_`, and
            a name that does not begin with a letter gets the prefix `arg_`.

    Raises:
        ValueError: The model is not a built `keras.Model`, its inputs are unknown, or no input has `input_size`.
        ExportError: An input is sparse, ragged, a scalar, or of unknown rank.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected `model` to be a keras.Model. Received: {type(model).__name__}")
    if not model.built:
        raise ValueError(f"Expected `model` to be built: call {model.name!r} once, or its build method")
    arguments = _required_arguments(model)
    several_arguments = len(arguments) > 1
    if input_signature is not None:
        structure = input_signature
    elif getattr(model, "inputs", None):
        structure, several_arguments = _symbolic_inputs(model), False
    else:
        structure = _recorded_inputs(model, several_arguments)

    specs: dict[str, tf.TensorSpec] = {}
    default_name = arguments[0] if arguments and not several_arguments else "inputs"
    layer_names = {id(layer.output): layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)}

    def add(leaf: Any, path: KeyPath) -> str:
        name: str | None
        if path and isinstance(path[-1], str):
            name = path[-1]
        else:
            name = layer_names.get(id(leaf)) or getattr(leaf, "name", None)
        if several_arguments and not name:
            name = arguments[int(path[0])]
        if not name or name.startswith("keras_tensor"):  # Keras numbers such names, so they differ between processes
            name = default_name if not path else f"{default_name}_{'_'.join(map(str, path))}"
        name = _unique(_identifier(name) if identifiers else name, specs)
        specs[name] = _spec(leaf, name, input_size)
        return name

    structure = _map(structure, add)
    if input_size is not None and not any(_has_size(spec, input_size) for spec in specs.values()):
        shapes = ", ".join(f"{name} {spec.shape}" for name, spec in specs.items())
        raise ValueError(f"Expected `input_size` to suit the model's inputs, {shapes}. Received: {input_size}")
    return Signature(specs, structure, several_arguments)


def axis_names(shape: tf.TensorShape | list[int | None]) -> list[str]:
    """Returns a name for every axis of an input or output, such as `batch`, `height`, `width` or `axis_1`."""
    shape = list(shape)
    rank = len(shape)
    names = ["batch", *(f"axis_{axis}" for axis in range(1, rank))]
    open_axes = [axis for axis in range(1, rank) if shape[axis] is None]
    if rank == 3:
        names[1:] = ["length", "channels"]
    elif rank == 4:
        if shape[1] is None and shape[3] is None:
            channels_first = keras.backend.image_data_format() == "channels_first"
        else:
            channels_first = shape[3] is None
        names[1:] = ["channels", "height", "width"] if channels_first else ["height", "width", "channels"]
    elif rank == 5 and open_axes != [1, 2]:
        names[1:] = ["frames", "height", "width", "channels"]
    elif rank >= 5:
        names[1:3] = ["height", "width"]
    return names


def _identifier(name: str) -> str:
    """Returns the name that TensorFlow gives to an argument of a signature."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)  # TensorFlow does not keep other letters apart
    return name if name[0].isalpha() else f"arg_{name}"


def _symbolic_inputs(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a functional or sequential model, in the structure that the model takes."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input


def _recorded_inputs(model: keras.Model, several_arguments: bool) -> Any:
    """Returns specs from the shapes that a subclassed model was built with. The batch size is open."""
    recorded = None if several_arguments else (model.get_build_config() or {}).get("input_shape")
    if recorded is None:
        raise ValueError(
            f"Expected `input_signature`, tf.TensorSpecs in the structure that {type(model).__name__}.call takes: "
            "the model does not record its inputs"
        )
    dtype = model.variable_dtype or keras.backend.floatx()
    return _map(recorded, lambda shape, _: tf.TensorSpec([None, *shape[1:]], dtype))


def _required_arguments(model: keras.Model) -> list[str]:
    """Returns the names of the arguments of `model.call` without a default, except `training` and `mask`."""
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        p.name for p in parameters if p.kind in kinds and p.default is p.empty and p.name not in ("training", "mask")
    ]


def _spec(leaf: Any, name: str, input_size: tuple[int, int] | None) -> tf.TensorSpec:
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


def _has_size(spec: tf.TensorSpec, input_size: tuple[int, int]) -> bool:
    sizes = dict(zip(axis_names(spec.shape), spec.shape))
    return (sizes.get("height"), sizes.get("width")) == tuple(input_size)


def _named_outputs(model: keras.Model, outputs: Any, inputs: Collection[str]) -> dict[str, tf.Tensor]:
    """Returns the outputs by name. ONNX forbids an output with the name of an input, so it gets another name."""
    names = list(getattr(model, "output_names", None) or ())
    leaves = _leaves(outputs)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    named: dict[str, tf.Tensor] = {}
    for index, (value, path) in enumerate(leaves):
        if path and isinstance(path[-1], str):
            name = path[-1]
        else:
            name = names[index] if len(names) == len(leaves) else f"output_{index}"
        named[_unique(name, {*named, *inputs})] = value
    return named


def _unique(name: str, taken: Collection[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _array(value: Any, spec: tf.TensorSpec) -> np.ndarray:
    try:
        if np.iscomplexobj(value) and not spec.dtype.is_complex:
            raise TypeError("complex numbers")  # TensorFlow would drop their imaginary parts
        value = tf.convert_to_tensor(value, spec.dtype)
    except (TypeError, ValueError) as error:
        expected = f"Expected samples of {spec.name} to be convertible to a tensor of dtype {spec.dtype.name}"
        raise ValueError(f"{expected}. Received: {type(value).__name__}: {error}") from error
    if not spec.shape.is_compatible_with(value.shape):
        raise ValueError(f"Expected samples of {spec.name} to have shape {spec.shape}. Received: {value.shape}")
    if value.dtype == tf.string:
        return np.array(value.numpy().tolist())  # a file of NumPy arrays cannot store objects
    # Nor bfloat16 or float8. The values are cast back when the model is called.
    return dtypes.storable(value.numpy())


def _map(structure: Any, function: Callable[[Any, KeyPath], Any], path: KeyPath = ()) -> Any:
    """Applies `function(leaf, path)` to the leaves of nested dicts, lists and tuples. A shape is a leaf."""
    if isinstance(structure, dict):
        return {key: _map(value, function, (*path, key)) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)) and not _is_shape(structure):
        items = [_map(value, function, (*path, index)) for index, value in enumerate(structure)]
        return tuple(items) if isinstance(structure, tuple) else items
    return function(structure, path)


def _leaves(structure: Any) -> list[tuple[Any, KeyPath]]:
    """Returns every leaf with its path, in order."""
    leaves = []
    _map(structure, lambda leaf, path: leaves.append((leaf, path)))
    return leaves


def _is_shape(value: list | tuple) -> bool:
    return bool(value) and all(size is None or isinstance(size, int) for size in value)
