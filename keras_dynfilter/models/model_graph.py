# SPDX-License-Identifier: Apache-2.0
"""The graph of a functional or sequential model, as data."""

import collections
import dataclasses
import graphlib
import itertools

import keras

from keras_dynfilter.ops.checks import integer


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An output of a call: the name of the layer, the number of the call among those of the layer, of the output."""

    layer: str
    call: int
    output: int


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a layer of the model, on the tensors it was given."""

    layer: str
    number: int
    sources: tuple


@dataclasses.dataclass(frozen=True)
class Graph:
    """Inputs, calls in an order in which they can be made, and outputs. Calls of input layers are left out."""

    inputs: tuple
    calls: tuple
    outputs: tuple

    def consumers(self):
        """Names of the layers that are called on what a layer returns, by name of the latter."""
        found = collections.defaultdict(set)
        for call in self.calls:
            for source in call.sources:
                found[source.layer].add(call.layer)
        return found


def graph(model):
    """The `Graph` of `model`, as Keras would save it: from its configuration, which both versions of Keras publish.

    Raises:
        ValueError: `model` is not functional or sequential, or has no inputs yet.
    """
    error = f"Expected `model` to be a functional or sequential keras.Model that is built. Received: model={model!r}"
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(error)
    if isinstance(model, keras.Sequential):
        tensors = [Tensor("", 0, 0), *(Tensor(layer.name, 0, 0) for layer in model.layers)]
        calls = tuple(Call(now.layer, 0, (before,)) for before, now in itertools.pairwise(tensors))
        return Graph((tensors[0],), calls, (tensors[-1],))
    try:
        config = model.get_config()
    except NotImplementedError:  # what a subclass does is in its code alone
        config = {}
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        raise ValueError(error)

    names = {layer["name"] for layer in config["layers"]}
    nodes = [
        (layer["name"], number, list(_tensors(node, names)))
        for layer in config["layers"]
        for number, node in enumerate(layer["inbound_nodes"])
    ]
    inputs, outputs = (list(_tensors(config[key], names)) for key in ("input_layers", "output_layers"))
    first_source, first_output = _first_calls(model, [*outputs, *itertools.chain(*(each[2] for each in nodes))])
    outputs = _renumbered(outputs, first_output)
    calls = {(name, number): Call(name, number, _renumbered(given, first_source)) for name, number, given in nodes}
    sources = {key: [(each.layer, each.call) for each in call.sources] for key, call in calls.items()}
    order = graphlib.TopologicalSorter(sources).static_order()
    return Graph(tuple(inputs), tuple(calls[key] for key in order if key in calls), outputs)


def _tensors(data, names):
    """The tensors in a part of a configuration, `[name of the layer, call, output, ...]`, in Keras's order."""
    if isinstance(data, dict):
        data = [data[key] for key in sorted(data)]
    if not isinstance(data, (list, tuple)):
        return
    if len(data) >= 3 and isinstance(data[0], str) and data[0] in names and integer(data[1]) and integer(data[2]):
        yield Tensor(*data[:3])
        data = data[3:]
    for each in data:
        yield from _tensors(each, names)


def _first_calls(model, tensors):
    """By layer, where the numbers of its calls start in sources and in outputs: for inner models it can be 1.

    That is a leftover of the node that a functional model once began with. Keras 2 has it in both places, Keras 3 in
    the outputs alone.
    """
    if keras.__version__.startswith("2."):
        first = {}
        for tensor in tensors:  # which between them mention every call
            first[tensor.layer] = min(tensor.call, first.get(tensor.layer, tensor.call))
        return first, first
    inner = [layer for layer in model.layers if any(kind.__name__ == "Functional" for kind in type(layer).__mro__)]
    return {}, {layer.name: 1 for layer in inner}


def _renumbered(tensors, first):
    return tuple(dataclasses.replace(each, call=each.call - first.get(each.layer, 0)) for each in tensors)
