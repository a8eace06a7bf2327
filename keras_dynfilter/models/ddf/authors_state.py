# SPDX-License-Identifier: Apache-2.0
"""Loads the networks that the authors of "Decoupled Dynamic Filter Networks" trained in PyTorch."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dynfilter.layers import DDF2D, FilterNorm
from keras_dynfilter.models.ddf.state_files import Path, StoredArray, read_state

# Name of a layer of our networks -> name of the module in the authors' networks.
_MODULES = (
    (r"stem", "conv1"),
    (r"stem_bn", "bn1"),
    (r"stage(\d+)_block(\d+)_(reduce|window|expand)(_bn)?", None),
    (r"stage(\d+)_block(\d+)_shortcut", "downsample.0"),
    (r"stage(\d+)_block(\d+)_shortcut_bn", "downsample.1"),
    (r"predictions", "fc"),
)
_IN_BLOCK = {"reduce": "conv1", "window": "conv2", "expand": "conv3"}
_IN_BLOCK_NORM = {"reduce": "bn1", "window": "bn2", "expand": "bn3"}
NUMBERS = "biuf"  # kinds of dtypes in files: booleans, integers, floating-point numbers


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A weight of the model, and how its value is computed from an entry of a state.

    Attributes:
        weight: The weight of the Keras model.
        shape: Shape of the entry.
        convert: Function from the entry to the value of the weight.
    """

    weight: Any
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]


def load_authors_state(model: keras.Model, state: Mapping[str, Any] | Path) -> None:
    """Loads a state of the authors' PyTorch networks into `ddf_resnet50`, `ddf_resnet101` or `ddf_resnet152`.

    The authors publish `ddf_mul_resnet50`, `ddf_add_resnet50` and `ddf_mul_resnet101`; the model must have the same
    depth and `combine`. Another depth is an error; another `combine` is not, because the states have equal entries. If
    the model has another number of classes than the state, or no classifier, its own classifier stays as it is, and all
    other weights are loaded.

    Args:
        model: A network of one of these functions, with `FilterNorm` in both branches, as by default.
        state: A dict from the names in the state to arrays or tensors, or the path of a file: `.pth`, `.pth.tar` or
            `.pt` (needs PyTorch), `.safetensors`, or `.npz`. The state may be in an entry `state_dict`, and its names
            may begin with `module.`. Files are read without running code from them.

    Raises:
        ValueError: The model has other layers than these networks; or entries of the state are missing, left over, of
            another shape, or not finite, or occur twice, with and without `module.`. The message lists them, and no
            weight is changed.
        FileNotFoundError: There is no file at the path.
        ImportError: The package that reads the file is not installed.

    Example:

    >>> model = ddf_resnet50(classes=10)
    >>> load_authors_state(model, "ddf_mul_resnet50.pth.tar")  # doctest: +SKIP
    """
    entries = _entries(model)
    values = _values(state if isinstance(state, Mapping) else read_state(state))
    head = [name for name in ("fc.weight", "fc.bias") if name in values]
    if any(name not in entries or values[name].shape != entries[name].shape for name in head):
        for name in ("fc.weight", "fc.bias"):
            entries.pop(name, None)
            values.pop(name, None)
    problems, arrays = list(_problems_of_shapes(entries, values)), {}
    for name, entry in entries.items():
        if name in values and _fits(name, values[name], entry):
            arrays[name] = _array(name, values[name])
            if not np.all(np.abs(arrays[name]) <= tf.as_dtype(entry.weight.dtype).max):
                problems.append(f"{name}: values that are not finite in {entry.weight.dtype}")
    if problems:
        raise ValueError(f"Expected `state` to fit the weights of {model.name}. Received:\n  " + "\n  ".join(problems))
    for name, entry in entries.items():
        entry.weight.assign(entry.convert(arrays[name].reshape(entry.shape)))


def _values(state):
    """Returns the entries of a state by name, without what Keras has no weights for. Each has a shape."""
    nested = state.get("state_dict")
    state = nested if isinstance(nested, Mapping) else state
    values: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for name, value in state.items():
        short = re.sub(r"^(module\.)+", "", str(name))
        if short.endswith(".num_batches_tracked"):
            continue
        if short in names:
            expected = "Expected `state` to hold every entry once, with or without `module.`"
            raise ValueError(f"{expected}. Received: {names[short]!r} and {name!r}")
        names[short], values[short] = name, value if hasattr(value, "shape") else _array(short, value)
    return values


def _array(name, value):
    """Returns an entry of a state as an array of float64."""
    try:
        if isinstance(value, StoredArray):
            if value.dtype.kind not in NUMBERS:  # one value of another dtype can have any number of bytes
                raise TypeError(value.dtype)
            value = value.read()
        elif hasattr(value, "detach"):  # a tensor of PyTorch, which may be on a GPU or have a type that NumPy lacks
            if value.is_complex():
                raise TypeError(value.dtype)
            value = value.detach().cpu().double().numpy()
        array = np.asarray(value)
        if array.dtype.kind in "cmMOSU":  # NumPy would convert strings and drop imaginary parts
            raise TypeError(array.dtype)
        return array.astype(np.float64)
    except Exception as error:  # of many types: a tensor of PyTorch may be sparse, and a dict can hold anything
        raise ValueError(f"Expected `state` to hold arrays of numbers. Received: {name}={value!r}") from error


def _fits(name, value, entry):
    """Returns whether an entry of the state has the right shape.

    The authors' scale of channel filters is a vector; its values are in the order of its entry here.
    """
    return value.shape == entry.shape or (name.endswith(".std") and math.prod(value.shape) == math.prod(entry.shape))


def _problems_of_shapes(entries, values):
    """Yields a line for each entry that is missing, left over, or of another shape."""
    for name in sorted(entries.keys() - values.keys()):
        yield f"{name}: missing, expected shape {entries[name].shape}"
    for name in sorted(values.keys() - entries.keys()):
        yield f"{name}: left over, shape {tuple(values[name].shape)}"
    for name, entry in entries.items():
        if name in values and not _fits(name, values[name], entry):
            yield f"{name}: shape {tuple(values[name].shape)}, expected {entry.shape}"


def _entries(model):
    """Returns a dict from the name of each entry of the state to the weight that it determines."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected `model` to be a keras.Model. Received: model={model!r}")
    entries: dict[str, _Entry] = {}
    for layer in model.layers:
        if layer.weights:
            module = _module(layer.name)
            if module is None:
                raise _not_a_ddf_resnet(model, f"the layer {layer.name!r}")
            entries.update((f"{module}.{name}", entry) for name, entry in _entries_of_layer(model, layer))
    if not any(isinstance(layer, DDF2D) for layer in model.layers):
        raise _not_a_ddf_resnet(model, "no DDF2D")
    return entries


def _module(name):
    for pattern, module in _MODULES:
        match = re.fullmatch(pattern, name)
        if match:
            if module is None:
                part = match[3]
                module = _IN_BLOCK_NORM[part] if match[4] else _IN_BLOCK[part]
            block = f"layer{match[1]}.{int(match[2]) - 1}." if match.lastindex else ""
            return block + module
    return None


def _entries_of_layer(model, layer):
    """Yields the names in a module of the state, and the weights that these entries determine."""
    if isinstance(layer, keras.layers.Conv2D):
        height, width, channels, filters = layer.kernel.shape
        yield "weight", _Entry(layer.kernel, (filters, channels, height, width), lambda v: v.transpose(2, 3, 1, 0))
    elif isinstance(layer, keras.layers.BatchNormalization):
        weights = dict(
            weight=layer.gamma, bias=layer.beta, running_mean=layer.moving_mean, running_var=layer.moving_variance
        )
        for name, weight in weights.items():
            yield name, _Entry(weight, tuple(weight.shape), np.asarray)
    elif isinstance(layer, keras.layers.Dense):
        features, classes = layer.kernel.shape
        yield "weight", _Entry(layer.kernel, (classes, features), np.transpose)
        yield "bias", _Entry(layer.bias, (classes,), np.asarray)
    elif isinstance(layer, DDF2D):
        yield from _entries_of_ddf(model, layer)
    else:
        raise _not_a_ddf_resnet(model, f"the layer {layer.name!r}, a {type(layer).__name__}")


def _entries_of_ddf(model, layer):
    """Yields the entries of a `DDF2D`.

    The authors number the values of channel filters channel by channel; here all channels of a tap come first.
    """
    generator = layer.generator
    norms = [generator.spatial_norm, *(branch.norm for branch in generator.channel_branches)]
    if len(norms) != 2 or not all(isinstance(norm, FilterNorm) and norm.center is None for norm in norms):
        raise _not_a_ddf_resnet(model, f"other norms or branches in {layer.name!r}")
    (branch,) = generator.channel_branches
    if generator.spatial_norm.scale != "constant" or branch.norm.scale != "tap" or layer.use_bias:
        raise _not_a_ddf_resnet(model, f"other scales of the norms, or a bias, in {layer.name!r}")
    channels, values = generator.spatial_kernel.shape
    squeezed = branch.squeeze.units
    taps = branch.expand.units // channels

    def tap_major(value):
        """Reorders the first axis from (channel, tap) to (tap, channel)."""
        return value.reshape(channels, taps, -1).transpose(1, 0, 2).reshape(value.shape)

    def pointwise(value):
        return value[:, :, 0, 0].T

    yield "spatial_branch.0.weight", _Entry(generator.spatial_kernel, (values, channels, 1, 1), pointwise)
    yield "spatial_branch.0.bias", _Entry(generator.spatial_bias, (values,), np.asarray)
    yield "channel_branch.1.weight", _Entry(branch.squeeze.kernel, (squeezed, channels, 1, 1), pointwise)
    yield "channel_branch.1.bias", _Entry(branch.squeeze.bias, (squeezed,), np.asarray)
    expand = (channels * taps, squeezed, 1, 1)
    yield "channel_branch.3.weight", _Entry(branch.expand.kernel, expand, lambda v: pointwise(tap_major(v)))
    yield "channel_branch.3.bias", _Entry(branch.expand.bias, (channels * taps,), tap_major)
    yield "channel_branch.4.std", _Entry(branch.norm.scale_weight, (channels, taps), np.transpose)


def _not_a_ddf_resnet(model, found):
    expected = "Expected `model` to be a network of ddf_resnet50, ddf_resnet101 or ddf_resnet152 with their norms"
    return ValueError(f"{expected}. Received: {model.name}, with {found}")
