# SPDX-License-Identifier: Apache-2.0
"""Builds networks of this package by name for the command line, and loads trained weights into them."""

import ast
import inspect
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_dynfilter import models
from keras_dynfilter.export import formats
from keras_dynfilter.export.report import ExportError, first_line
from keras_dynfilter.untrusted import hdf5, variables


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
    if weights.suffix != ".h5":
        raise ValueError(f"Expected --weights to be an .h5 file, written by save_weights. Received: {weights}")
    arguments = dict(_option(name, functions[name], text) for text in options)
    try:
        hdf5.check(weights, str(weights))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ExportError(f"{weights} does not hold weights of {name}: {first_line(error)}") from error
    try:
        variables.check(lambda: functions[name](**arguments), f"the variables of {name}")
        model = functions[name](**arguments)
    except Exception as error:  # wrong options, such as a huge width, raise exceptions of many classes
        raise ValueError(f"Expected options that {name} accepts. Received: {arguments}: {first_line(error)}") from error
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
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return key, value
