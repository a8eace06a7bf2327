# SPDX-License-Identifier: Apache-2.0
"""Reads the graph of a functional or sequential model: which layers are called on the outputs of which other layers."""

import collections
import dataclasses
import graphlib
import itertools

import keras

from keras_dynfilter.ops.checks import integer


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Identifies one output of one call of a layer."""

    layer: str
    call: int  # index of the call among all calls of the layer
    output: int  # index of the output of this call


@dataclasses.dataclass(frozen=True)
class Call:
    """Describes one call of a layer of the model, and the tensors that the call receives."""

    layer: str
    number: int
    sources: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """Describes a model: its inputs, its calls in an executable order, and its outputs. Input layers have no calls."""

    inputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]

    def consumers(self) -> dict[str, set[str]]:
        """Returns a dict from the name of each layer to the names of the layers that are called on its outputs."""
        consumers = collections.defaultdict(set)
        for call in self.calls:
            for source in call.sources:
                consumers[source.layer].add(call.layer)
        return consumers


def graph(model: keras.Model) -> Graph:
    """Reads the `Graph` of `model` from its configuration, the only public description in both Keras 2 and Keras 3.

    Raises:
        ValueError: `model` is neither functional nor sequential, or is not built.
    """
    error = f"Expected `model` to be a functional or sequential keras.Model that is built. Received: model={model!r}"
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(error)
    if isinstance(model, keras.Sequential):
        tensors = [Tensor("", 0, 0), *(Tensor(layer.name, 0, 0) for layer in model.layers)]
        chain = tuple(Call(output.layer, 0, (source,)) for source, output in itertools.pairwise(tensors))
        return Graph((tensors[0],), chain, (tensors[-1],))
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass of keras.Model has its graph in its code
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
    all_sources = itertools.chain(*(sources for _, _, sources in nodes))
    first_in_sources, first_in_outputs = _first_calls(model, [*outputs, *all_sources])
    calls = {
        (name, number): Call(name, number, _renumbered(sources, first_in_sources)) for name, number, sources in nodes
    }
    predecessors = {key: [(source.layer, source.call) for source in call.sources] for key, call in calls.items()}
    order = graphlib.TopologicalSorter(predecessors).static_order()
    return Graph(
        tuple(inputs), tuple(calls[key] for key in order if key in calls), _renumbered(outputs, first_in_outputs)
    )


def _tensors(data, names):
    """Yields the tensors in a part of a configuration, `[name of the layer, call, output, ...]`, in Keras's order."""
    if isinstance(data, dict):
        data = [data[key] for key in sorted(data)]
    if not isinstance(data, (list, tuple)):
        return
    if len(data) >= 3 and isinstance(data[0], str) and data[0] in names and integer(data[1]) and integer(data[2]):
        yield Tensor(*data[:3])
        data = data[3:]
    for item in data:
        yield from _tensors(item, names)


def _first_calls(model, tensors):
    """Returns the index of the first call of each layer as two dicts: in the sources of calls, and in the outputs.

    The index is 0 for layers that are not in the dict. A configuration counts the calls of nested models from 1 in some
    places, because functional models once had an additional first node: Keras 2 in the sources and in the outputs,
    Keras 3 only in the outputs.
    """
    if keras.__version__.startswith("2."):
        first: dict[str, int] = {}
        for tensor in tensors:  # sources and outputs together mention every call
            first[tensor.layer] = min(tensor.call, first.get(tensor.layer, tensor.call))
        return first, first
    nested = [layer for layer in model.layers if any(base.__name__ == "Functional" for base in type(layer).__mro__)]
    return {}, {layer.name: 1 for layer in nested}


def _renumbered(tensors, first):
    return tuple(dataclasses.replace(tensor, call=tensor.call - first.get(tensor.layer, 0)) for tensor in tensors)
